/**
 * Fills an ebbtide store, while no daemon has it open, with the image records that client/seed.go makes in a
 * containerd's database. Its own process: `node dist/bench/daemon/seed.js ROOT LISTS BULK`.
 */
import { createHash } from 'node:crypto';
import { openDB } from '../../src/open.js';

const BATCH = 1000;
const digestOf = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`;

const [root, lists, bulk] = process.argv.slice(2);
await using db = await openDB({ root: root!, snapshotters: ['native', 'overlayfs'], log: () => {} });
for (const [namespace, count] of [
  ['list', Number(lists)],
  ['bulk', Number(bulk)],
] as const) {
  const ctx = { namespace };
  for (let from = 0; from < count; from += BATCH) {
    await db.update(async (tx) => {
      for (let n = from; n < Math.min(count, from + BATCH); n++) {
        const name = `example.com/${namespace}/${String(n).padStart(6, '0')}:latest`;
        await db.images.create(db.withTransactionContext(ctx, tx), {
          name,
          target: {
            mediaType: 'application/vnd.oci.image.manifest.v1+json',
            digest: digestOf(name),
            size: 1,
          },
          labels: { 'containerd.io/gc.ref.content.0': digestOf(`${name} layer`) },
        });
      }
    });
  }
}
