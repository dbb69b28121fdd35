/**
 * The command as one script, with V8's code cache beside it: compiling the script costs more than a short verb does. Called by
 * main.ts, and by write-code-cache.ts in the build.
 *
 * A cache is for one build of V8, which its name says, so it is made where it is used and not packed. V8 compares its version
 * and its flags, and compiles the script where they differ; but it ends the process where the bytes are not those that it wrote
 * for this script. So they begin with a checksum of both. The script has no `import()`, which does not work in one from a cache.
 */
import { createHash } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname } from 'node:path';
import { Script } from 'node:vm';

const CHECKSUM_BYTES = 32;

interface Loaded {
  readonly run: (words: readonly string[]) => Promise<void>;
  /** Whether V8 took the cache. */
  readonly isCached: boolean;
  /** Writes the cache, with all functions that were called so far. */
  readonly writeCache: () => void;
}

export const cacheOf = (file: string): string => `${file}.${process.version}-${process.arch}.cache`;

/** REQUIRES: the absolute path of the bundle of run.ts, which is ASCII. */
export function load(file: string): Loaded {
  const source = readFileSync(file);
  const cachedData = readCache(file, source);
  const script = new Script(
    `(function (exports, require, module, __filename, __dirname) {${source.toString('latin1')}\n})`,
    {
      filename: file,
      ...(cachedData && { cachedData }),
    },
  );
  const module = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(file), module, file, dirname(file));
  const { run } = module.exports as Pick<Loaded, 'run'>;
  const isCached = script.cachedDataRejected === false;
  return { run, isCached, writeCache: () => writeCache(file, source, script.createCachedData()) };
}

const checksum = (source: Buffer, data: Buffer): Buffer =>
  createHash('sha256').update(source).update(data).digest();

/** Undefined if there is none for this script. */
function readCache(file: string, source: Buffer): Buffer | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(cacheOf(file));
  } catch {
    return undefined;
  }
  const data = bytes.subarray(CHECKSUM_BYTES);
  return checksum(source, data).equals(bytes.subarray(0, CHECKSUM_BYTES)) ? data : undefined;
}

/** Replaces the file: another process may be reading it. */
function writeCache(file: string, source: Buffer, data: Buffer): void {
  const temporary = `${cacheOf(file)}.${process.pid}`;
  writeFileSync(temporary, Buffer.concat([checksum(source, data), data]));
  renameSync(temporary, cacheOf(file));
}
