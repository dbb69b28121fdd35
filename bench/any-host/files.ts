/** Files of the real bbolt for the benchmarks of reading them: live/main.go. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash, type Hash } from 'node:crypto';
import { createInterface } from 'node:readline';
import { type Bucket, rootBucket } from '../../src/bolt/bucket.js';
import type { BoltSnapshot } from '../../src/bolt/snapshot.js';
import { buildGo } from '../../test/conformance/go-programs.js';

const program = (): string => buildGo('bench/any-host/live', 'program');

function run(...args: string[]): string {
  const { status, stdout, stderr } = spawnSync(program(), args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(stderr);
  return stdout.trim();
}

/** @param value bytes of a value that every 500th record has */
export const fill = (path: string, records: number, value: number): string =>
  run('fill', path, `${records}`, `${value}`);

/** Entries, and a digest of them, as bbolt reads them. */
export const theirSum = (path: string): string => run('sum', path);

/** The same, as they are read here. */
export function ourSum(snapshot: BoltSnapshot): string {
  const hash = createHash('sha256');
  return `${addAll(rootBucket(snapshot), hash)} ${hash.digest('hex')}`;
}

function addAll(bucket: Bucket, hash: Hash): number {
  let entries = 0;
  bucket.each((entry) => {
    entries++;
    add(hash, entry.bytes.subarray(entry.keyAt, entry.keyEnd));
    const below = entry.bucket;
    if (below === undefined) add(hash, entry.value);
    else entries += addAll(below, hash);
  });
  return entries;
}

const ZERO = Buffer.alloc(1);
function add(hash: Hash, part: Buffer): void {
  let end = part.length;
  while (end > 0 && part[end - 1] === 0) end--;
  hash.update(part.subarray(0, end)).update(ZERO);
}

/** Throws unless all that was read is of one transaction. */
export function checkOneMoment(snapshot: BoltSnapshot): void {
  const states = new Set<string>();
  let records = 0;
  let versions = 0n;
  rootBucket(snapshot).each(({ key, bucket }) => {
    if (key !== 'records') bucket?.each(({ text }) => states.add(text));
    else
      bucket?.each((record) => {
        records++;
        record.bucket?.each(({ key: field, value }) => {
          if (field === 'version') versions += value.readBigUInt64LE(0);
        });
      });
  });
  const [state = '', ...others] = states;
  if (others.length > 0 || !state.endsWith(` ${records} ${versions}`))
    throw new Error(`torn: ${[...states].join(', ')}, but ${records} records, versions ${versions}`);
}

/** A process that commits to a file until it is ended. */
export class Committing {
  readonly #child: ChildProcess;
  readonly #started = performance.now();
  readonly #lines: AsyncIterableIterator<string>;

  private constructor(child: ChildProcess, lines: AsyncIterableIterator<string>) {
    this.#child = child;
    this.#lines = lines;
  }

  static async start(path: string, perSecond: number, burst: number): Promise<Committing> {
    const child = spawn(program(), ['run', path, `${perSecond}`, `${burst}`], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
    if ((await lines.next()).value !== 'ready') throw new Error('it did not start');
    return new Committing(child, lines);
  }

  /** Commits for each second that it ran. */
  async end(): Promise<number> {
    const seconds = (performance.now() - this.#started) / 1000;
    this.#child.stdin?.end();
    return Number((await this.#lines.next()).value) / seconds;
  }
}
