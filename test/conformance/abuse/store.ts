/** What a store has before it is abused: a list that is almost as large as a message may be, and a blob. */
import { fileURLToPath } from 'node:url';
import { digestOf } from '../../../src/model/digest.js';
import { openDB } from '../../../src/open.js';

export const BIG_NAMESPACE = 'big';
const IMAGES = 3700;
const LABEL_BYTES = 3900;
export const blobBytes = Buffer.alloc(8 * 2 ** 20, 'blob');
export const BLOB = digestOf(blobBytes);

export async function fillStore(root: string): Promise<void> {
  await using db = await openDB({ root, snapshotters: ['native', 'overlayfs'], log: () => undefined });
  const ctx = { namespace: BIG_NAMESPACE };
  const target = { mediaType: 'application/vnd.oci.image.manifest.v1+json', digest: BLOB, size: 1 };
  const labels = Object.fromEntries(
    Array.from({ length: 15 }, (_, i) => [`label-${i}`, 'v'.repeat(LABEL_BYTES / 15)]),
  );
  for (let from = 0; from < IMAGES; from += 100) {
    await db.update(async (tx) => {
      for (let n = from; n < Math.min(IMAGES, from + 100); n++) {
        await db.images.create(db.withTransactionContext(ctx, tx), {
          name: `example.com/${n}`,
          target,
          labels,
        });
      }
    });
  }
  const writer = await db.content.writer({ namespace: 'test' }, 'blob', {
    size: blobBytes.length,
    digest: BLOB,
  });
  await writer.write(blobBytes);
  await writer.commit(blobBytes.length, BLOB, { labels: { 'containerd.io/gc.root': 'x' } });
  await writer.close();
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await fillStore(process.argv[2]!);
