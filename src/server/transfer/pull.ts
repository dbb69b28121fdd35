/**
 * Pulls an image from a registry: resolves its name, fetches what the destination wants of it, unpacks it, and names it, in this
 * order, so that an image which has a name is whole. Called by transfer.ts.
 */
import { wrap } from '../../errors.js';
import { fetchImage } from '../../images/fetch.js';
import { BlobProgress } from './blob-progress.js';
import { checkReferences } from './image-names.js';
import { type ImageStoreMessage, platformOf, type RegistryMessage } from './messages.js';
import { hostLabel, registryLabel, withRegistry } from './registry.js';
import { namesIn, saveImages } from './save.js';
import { leased, type Transfer } from './under-way.js';
import { unpackFor, unpacksOf } from './unpacks.js';

/** Blobs of one transfer under way at once, as containerd. */
export const BLOBS_AT_ONCE = 3;

export async function pull(t: Transfer, source: RegistryMessage, store: ImageStoreMessage): Promise<void> {
  const { host, reporter } = t;
  checkReferences(store.extraReferences);
  const unpacks = unpacksOf(host, store.unpacks);
  const label = registryLabel(source);
  await withRegistry(t, source, (client) =>
    leased(t, async (ctx) => {
      reporter.report({ event: `Resolving from ${label}` });
      const resolved = await client.resolve().catch((error: unknown) => {
        throw wrap('failed to resolve image', error);
      });
      const target = { ...resolved, annotations: {} };
      const names = namesIn(store, target.digest);
      reporter.report({ event: `Pulling from ${label}` });
      reporter.report({ event: 'fetching image content', name: source.reference });
      const from = {
        host: hostLabel(client.reference),
        repository: client.reference.repository,
        blob: (blob: Parameters<typeof client.blob>[0]) => client.blob(blob),
      };
      using observer = new BlobProgress(reporter, source.reference, 'downloading');
      await fetchImage(host.db, ctx, from, target, {
        platforms: store.platforms.map(platformOf),
        allMetadata: store.allMetadata,
        manifestLimit: store.manifestLimit,
        atOnce: BLOBS_AT_ONCE,
        blobBytesMax: host.limits.ingestBytes,
        observer,
      });
      for (const unpack of unpacks)
        await unpackFor(host.db, ctx, [target], unpack, (step) => observer.unpacking(step));
      observer.unpacked();
      for (const { name } of await saveImages(host.db, ctx, names, target, store.labels))
        reporter.report({ event: 'saved', name });
      reporter.report({ event: `Completed pull from ${label}` });
    }),
  );
}
