/** A store for the tests of the mount manager, what is mounted below its root, and what they say of mounts again and again. */
import { existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Mount } from '../../src/backends/contract.js';
import type { CallContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import { mountKey } from '../../src/engine/schema/keys.js';
import { type ErrorKind, isKind } from '../../src/errors.js';
import { layout } from '../../src/open.js';
import { testDB } from '../support/db.js';
import { mountedBelow } from '../support/mounted.js';
import { tempDir } from '../support/temp.js';

export const asRoot = { skip: process.getuid?.() === 0 ? false : 'needs root' };
export const ctx: CallContext = { namespace: 'ns1' };
export const bind = (source: string, ...options: string[]): Mount => ({
  type: 'bind',
  source,
  options: ['rbind', ...options],
});
export const kind = (wanted: ErrorKind, words: RegExp) => (error: unknown) =>
  isKind(error, wanted) && words.test((error as Error).message);

export interface Place {
  db: DB;
  root: string;
  /** A directory with a file of its name in it. */
  directory(name: string): string;
  /** What is mounted below the root now. */
  mounted(): string[];
  activations(): string[];
}

export async function place(t: TestContext): Promise<Place> {
  const base = await tempDir(t);
  const root = join(base, 'root');
  mkdirSync(root);
  const mounted = mountedBelow(t, root);
  const db = await testDB(t, { root, engine: 'lmdb' });
  const directory = (name: string): string => {
    const path = join(base, name);
    mkdirSync(path);
    writeFileSync(join(path, name), name);
    return path;
  };
  const activations = (): string[] => {
    const path = layout.mounts(root);
    return existsSync(path) ? readdirSync(path) : [];
  };
  return { db, root, directory, mounted, activations };
}

export const recordOf = (db: DB, name: string): Record<string, unknown> | undefined =>
  db.engine.get(mountKey('ns1', name)) as Record<string, unknown> | undefined;
