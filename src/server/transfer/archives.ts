/** Archives over named streams: into the store, and out of it. Called by transfer.ts. */
import { exportImages } from '../../images/export.js';
import { importImage } from '../../images/import.js';
import { ByteSender, received } from './bytes.js';
import { checkReferences, entryNames, exportName } from './image-names.js';
import {
  type ExportStreamMessage,
  type ImageStoreMessage,
  type ImportStreamMessage,
  platformOf,
} from './messages.js';
import { leased, notHere, type Transfer, using } from './under-way.js';
import { unpackFor, unpacksOf } from './unpacks.js';

export async function importStream(
  t: Transfer,
  source: ImportStreamMessage,
  store: ImageStoreMessage,
): Promise<void> {
  const { host, reporter } = t;
  const references = store.extraReferences;
  checkReferences(references);
  if (store.name !== '') throw notHere('an image of the index of an archive (--index-name)');
  if (source.forceCompress) throw notHere('compressing what an archive has (--compress-blobs)');
  const unpacks = unpacksOf(host, store.unpacks);
  const stream = t.take(source.stream);
  await using(stream, async () => {
    reporter.report({ event: 'Importing' });
    const bytes = received(stream);
    await leased(t, async (ctx) => {
      const images = await importImage(host.db, ctx, lent(bytes), {
        names: (annotations, digest) => entryNames(references, annotations, digest),
        ...(Object.keys(store.labels).length > 0 && { labels: store.labels }),
        complete: async (_, targets) => {
          // What follows the archive's end: a sender that cannot send it takes that for a failure.
          for await (const _ of bytes);
          for (const unpack of unpacks) await unpackFor(host.db, ctx, targets, unpack);
        },
      });
      for (const { name, target } of images) reporter.report({ event: 'saved', name, desc: target });
    });
    reporter.report({ event: 'Completed import' });
  });
}

/** The same bytes for a reader that may stop before their end. */
const lent = (bytes: AsyncIterator<Uint8Array>): AsyncIterable<Uint8Array> => ({
  [Symbol.asyncIterator]: () => ({ next: () => bytes.next() }),
});

export async function exportStream(
  t: Transfer,
  source: ImageStoreMessage,
  output: ExportStreamMessage,
): Promise<void> {
  const { host, call, reporter } = t;
  const { platforms, allPlatforms } = output;
  checkReferences(source.extraReferences);
  const names = [...(source.name === '' ? [] : [source.name]), ...source.extraReferences.map(exportName)];
  if (platforms.length > 1) throw notHere('an export of several platforms, but not of all');
  if (output.skipCompatibilityManifest)
    throw notHere('an export without manifest.json (--skip-manifest-json)');
  if (output.skipNonDistributable) throw notHere('leaving out layers (--skip-non-distributable)');
  // Before the stream is used, which a client takes for the archive.
  for (const name of names) await host.db.images.get(call.context, name);
  const stream = t.take(output.stream);
  await using(stream, async () => {
    reporter.report({ event: 'Exporting' });
    const sender = new ByteSender(stream);
    const [platform] = platforms;
    await exportImages(host.db, call.cancellable, names, (bytes) => sender.send(bytes), {
      ...(allPlatforms ? { allPlatforms } : platform && { platform: platformOf(platform) }),
    });
    reporter.report({ event: 'Completed export' });
  });
}
