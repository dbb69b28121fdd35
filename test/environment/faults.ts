/**
 * Calls to the file system that fail on request (faults.c), for the tests of a bad environment: how the library is built,
 * and the file through which a test, or the program itself, says which call fails next.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { constants } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Kinds of calls, as faults.c has them. */
const Call = {
  reads: 1,
  makes: 2,
  changes: 4,
  writes: 8,
  flushes: 16,
  opens: 32,
  looks: 64,
  allocates: 128,
  maps: 256,
} as const;

/** The calls that fail with an error, where it is the disk's or the process's state. */
export const faultCalls = {
  ENOSPC: Call.makes | Call.writes | Call.allocates,
  EIO: Call.reads | Call.makes | Call.changes | Call.writes | Call.flushes | Call.opens | Call.looks,
  EMFILE: Call.opens,
  EROFS: Call.makes | Call.changes,
  EACCES: Call.makes | Call.changes | Call.opens | Call.looks,
  ENOMEM: Call.maps | Call.opens,
} as const;
/** The calls that a process can be killed before, to change something that another one finds. */
const KILLED_CALLS = Call.makes | Call.changes | Call.writes | Call.flushes | Call.allocates;
const KILLED = 4096;

export type FaultError = keyof typeof faultCalls;
export const faultErrors = Object.keys(faultCalls) as FaultError[];

export interface Fault {
  error: FaultError;
  /** Number of the call that fails, from 1; 0: none, the calls are only counted. */
  at: number;
  /** That call and all after it. */
  lasting: boolean;
  /** Of the calls that fail with this error, flushes only. */
  flushes?: boolean;
  /** Instead of all this: so many descriptors are left to the process, by its limit. */
  descriptors?: number;
}

const BYTES = 256;

/** The file that the library has mapped. */
export class FaultControl {
  readonly path: string;
  readonly #fd: number;

  constructor(path: string) {
    this.path = path;
    this.#fd = openSync(path, 'a+');
    closeSync(this.#fd);
    this.#fd = openSync(path, 'r+');
    this.none();
  }

  arm({ error, at, lasting, flushes }: Fault): void {
    const number = constants.errno[error];
    const calls = flushes ? Call.flushes : faultCalls[error];
    this.#write([number, calls, at, lasting ? 1 : 0]);
  }

  /** The process is killed before the call of this number that changes something; 0: such calls are only counted. */
  killAt(at: number): void {
    this.#write([KILLED, KILLED_CALLS, at, 0]);
  }

  /** Nothing fails any more. */
  none(): void {
    this.#write([]);
  }

  /** Calls counted since `arm`, those that failed, and the first of them by its name and path below the root. */
  get seen(): { count: number; fired: number; what: string } {
    const bytes = Buffer.alloc(BYTES);
    readSync(this.#fd, bytes, 0, BYTES, 0);
    const what = bytes.toString('latin1', 24, bytes.indexOf(0, 24));
    return { count: bytes.readUInt32LE(16), fired: bytes.readUInt32LE(20), what };
  }

  #write(words: readonly number[]): void {
    const bytes = Buffer.alloc(BYTES);
    for (const [i, word] of words.entries()) bytes.writeUInt32LE(word, 4 * i);
    writeSync(this.#fd, bytes, 0, BYTES, 0);
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** Compiles a library to preload, `faults` or `no-threads`, into `dir`; returns its path, or why there is none. */
export function buildFaults(dir: string, name = 'faults'): { path: string } | { missing: string } {
  if (process.platform !== 'linux') return { missing: 'calls are made to fail on Linux only' };
  const source = fileURLToPath(new URL(`../../../test/environment/${name}.c`, import.meta.url));
  const path = join(dir, `${name}.so`);
  const flags = ['-shared', '-fPIC', '-O1', '-Wall', '-Wextra', '-Werror'];
  const compiler = process.env.CC ?? 'cc';
  const done = spawnSync(compiler, [...flags, '-o', path, source, '-ldl'], { encoding: 'utf8' });
  if (done.error !== undefined)
    return { missing: `no C compiler (${compiler}): apt-get install gcc libc6-dev` };
  assert.equal(done.status, 0, `the library does not compile:\n${done.stderr}`);
  return { path };
}

/** For a program whose calls below `root` (real path) shall fail. */
export const faultsEnvironment = (
  library: string,
  control: string,
  root: string,
): Record<string, string> => ({
  LD_PRELOAD: library,
  FAULTS_CONTROL: control,
  FAULTS_ROOT: root,
  UV_USE_IO_URING: '0',
});
