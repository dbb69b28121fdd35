/** What the tests of backups share: a store with something of everything, and looking at what was restored. */
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { CallContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import type { OpenOptions } from '../../src/db-options.js';
import { digestOf } from '../../src/model/digest.js';
import { layout, openDB } from '../../src/open.js';
import { readBlob, writeBlob } from '../../src/stores/content/content-helpers.js';

export const ctx: CallContext = { namespace: 'test' };
export const root = { 'containerd.io/gc.root': 'test' };

export const open = (directory: string, options: Partial<OpenOptions> = {}): Promise<DB> =>
  openDB({ root: directory, snapshotters: ['native'], log: () => {}, ...options });

/** A blob that is kept; returns its digest. */
export async function blob(db: DB, text: string): Promise<string> {
  const bytes = Buffer.from(text);
  const digest = digestOf(bytes);
  await writeBlob(db.content, ctx, `ref-${digest}`, bytes, { digest, size: bytes.length }, { labels: root });
  return digest;
}

export const blobFile = (directory: string, digest: string): string =>
  join(layout.content(directory), 'blobs', ...digest.split(':'));

/** Where the files of an active snapshot are. */
export async function filesOf(db: DB, snapshotter: string, key: string): Promise<string> {
  const [mount] = await db.snapshotter(snapshotter)!.mounts(ctx, key);
  const upper = mount!.options.find((option) => option.startsWith('upperdir='));
  return upper?.slice('upperdir='.length) ?? mount!.source;
}

/** What a check says that reads every blob. */
export async function assertSound(db: DB): Promise<void> {
  const { sound, findings, leftovers } = await db.check({}, { hash: true });
  assert.deepEqual({ sound, findings, leftovers }, { sound: true, findings: [], leftovers: 0 });
}

export const read = async (db: DB, digest: string): Promise<string> =>
  (await readBlob(db.content, ctx, { digest })).toString();

/** Drafts that lie in a directory. */
export const drafts = async (directory: string): Promise<string[]> =>
  (await readdir(directory)).filter((name) => name.startsWith('.ebbtide-draft-'));
