/** ebbtide as the benchmark opens it: records on disk, backends without bytes. Used in the child process only. */
import { readFileSync } from 'node:fs';
import type { DB } from '../src/db.js';
import type { Log } from '../src/db-host.js';
import type { Engine } from '../src/engine/contract.js';
import { CoreEngine } from '../src/engine/core/engine.js';
import { openLmdbEngine } from '../src/engine/lmdb/engine.js';
import { LmdbStorage } from '../src/engine/lmdb/storage.js';
import { openMemoryEngine } from '../src/engine/memory/engine.js';
import { metadataIndexer } from '../src/gc/references.js';
import { createGraph } from '../src/graph/carriers.js';
import { newDB } from '../src/open.js';
import { snapshotterName } from '../src/synth/records.js';
import { NamesOnlyContent, NamesOnlySnapshots } from './backends.js';
import type { Memory } from './results.js';

export interface BenchStore {
  db: DB;
  /** The same records; resolves when a write is visible, before it is on disk. Not to be closed. */
  visible: DB;
  openMs: number;
  /** Resolves when all that is durable is in the tree, too. */
  drain(): Promise<void>;
}

const log: Log = (level, message, details) => {
  if (level !== 'info') process.stderr.write(`${level}: ${message} ${JSON.stringify(details ?? {})}\n`);
};

/** `dir` undefined: in memory, to separate the cost of the disk. */
export function openEngine(dir: string | undefined): Promise<Engine> {
  const options = {
    indexer: metadataIndexer,
    graph: createGraph(),
    warn: (message: string) => void process.stderr.write(`${message}\n`),
  };
  return dir === undefined ? openMemoryEngine(options) : openLmdbEngine(dir, options);
}

export async function openStore(dir: string | undefined): Promise<BenchStore> {
  const start = performance.now();
  const engine = await openEngine(dir);
  const dbOver = (durability: 'flushed' | 'visible'): Promise<DB> =>
    newDB(
      undefined,
      engine,
      new NamesOnlyContent(),
      { [snapshotterName]: new NamesOnlySnapshots() },
      { durability, log },
    );
  const db = await dbOver('flushed');
  const openMs = performance.now() - start;
  const drain = async (): Promise<void> => {
    if (engine instanceof CoreEngine && engine.storage instanceof LmdbStorage) await engine.storage.drain();
  };
  return { db, visible: await dbOver('visible'), openMs, drain };
}

/** The process's resident memory now. */
export function resident(): Memory {
  const text = readFileSync('/proc/self/status', 'utf8');
  const field = (name: string): number => {
    const match = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text);
    return match === null ? 0 : Number(match[1]) * 1024;
  };
  return { anonBytes: field('RssAnon'), fileBytes: field('RssFile') };
}

/** The most memory seen while `fn` runs, looked at every 10 ms and at the end. */
export async function peakWhile<T>(fn: () => Promise<T>): Promise<{ result: T; memory: Memory }> {
  const memory = resident();
  const look = (): void => {
    const now = resident();
    memory.anonBytes = Math.max(memory.anonBytes, now.anonBytes);
    memory.fileBytes = Math.max(memory.fileBytes, now.fileBytes);
  };
  const timer = setInterval(look, 10);
  try {
    return { result: await fn(), memory };
  } finally {
    clearInterval(timer);
    look();
  }
}
