/** Imports in small: blobs and snapshots made per second with files below the store, under a lease. */

import { digestOf } from '../src/model/digest.js';
import { openDB } from '../src/open.js';
import { writeBlob } from '../src/stores/content/content-helpers.js';
import { withId } from '../src/stores/leases.js';
import { crowd, perSecond } from './rates.js';
import type { FileRates } from './results.js';

const BODY = '0123456789abcdef'.repeat(64);

export async function files(root: string, count: number): Promise<FileRates> {
  await using db = await openDB({ root, snapshotters: ['native'] });
  const ctx = { namespace: 'k8s.io', lease: 'bench' };
  await db.leases.create({ namespace: ctx.namespace }, withId('bench'));
  const write = async (i: number): Promise<void> => {
    const body = Buffer.from(String(i).padStart(8, '0') + BODY.slice(8));
    const descriptor = { digest: digestOf(body), size: body.length };
    await writeBlob(db.content, ctx, `blob-${i}`, body, descriptor);
  };
  const snapshotter = db.snapshotter('native');
  if (snapshotter === undefined) throw new Error('there is no native snapshotter');
  return {
    blobWrite1: await perSecond('blobWrite1', count, 1, write),
    blobWrite16: await perSecond('blobWrite16', 1, count, () => crowd(count, 16, (i) => write(count + i))),
    snapshotCommit1: await perSecond('snapshotCommit1', Math.ceil(count / 2), 1, async (i) => {
      await snapshotter.prepare(ctx, `prepared-${i}`, '');
      await snapshotter.commit(ctx, `committed-${i}`, `prepared-${i}`);
    }),
  };
}
