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
import { wholeNames } from './save.js';
import { leased, type Transfer, using } from './under-way.js';
import { unpackFor, unpacksOf } from './unpacks.js';

export async function importStream(
  t: Transfer,
  source: ImportStreamMessage,
  store: ImageStoreMessage,
): Promise<void> {
  const { host, reporter } = t;
  const references = store.extraReferences;
  checkReferences(references);
  const unpacks = unpacksOf(host, store.unpacks);
  const stream = t.take(source.stream);
  await using(stream, async () => {
    reporter.report({ event: 'Importing' });
    const bytes = received(stream);
    await leased(t, async (ctx) => {
      const images = await importImage(host.db, ctx, lent(bytes), {
        indexNames: (digest) => wholeNames(store, digest),
        compress: source.forceCompress,
        names: (annotations, digest) => entryNames(references, annotations, digest),
        ...(Object.keys(store.labels).length > 0 && { labels: store.labels }),
        complete: async (_, targets) => {
          for (const unpack of unpacks) await unpackFor(host.db, ctx, targets, unpack);
        },
      });
      // What follows the archive's end: a sender that cannot send it takes that for a failure.
      for await (const _ of bytes);
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
  // Before the stream is used, which a client takes for the archive.
  for (const name of names) await host.db.images.get(call.context, name);
  const stream = t.take(output.stream);
  await using(stream, async () => {
    reporter.report({ event: 'Exporting' });
    const sender = new ByteSender(stream);
    const [platform, ...more] = platforms.map(platformOf);
    await exportImages(
      host.db,
      call.cancellable,
      names,
      { borrow: (bytes) => sender.send(bytes) },
      {
        ...(allPlatforms && { allPlatforms }),
        // Of one platform only its manifest; of several an index with theirs.
        ...(!allPlatforms &&
          platform &&
          (more.length === 0 ? { platform } : { platforms: [platform, ...more] })),
        dockerManifest: !output.skipCompatibilityManifest,
        nonDistributable: !output.skipNonDistributable,
      },
    );
    await sender.flush();
    reporter.report({ event: 'Completed export' });
  });
}
