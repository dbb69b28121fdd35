/** Pushes an image to a registry: what its name's target refers to, of the platforms that were asked for. Called by transfer.ts. */
import { pushImage } from '../../images/push.js';
import { descriptorMessage } from '../messages/convert.js';
import { BlobProgress } from './blob-progress.js';
import { type ImageStoreMessage, platformOf, type RegistryMessage } from './messages.js';
import { BLOBS_AT_ONCE } from './pull.js';
import { hostLabel, registryLabel, withRegistry } from './registry.js';
import { reading, type Transfer } from './under-way.js';

export async function push(
  t: Transfer,
  source: ImageStoreMessage,
  destination: RegistryMessage,
): Promise<void> {
  const { host, call, reporter } = t;
  const { name, target } = await host.db.images.get(call.context, source.name);
  const label = registryLabel(destination);
  const desc = descriptorMessage(target);
  // The tag then names the target, and nothing else that is sent.
  const { reference } = destination;
  const digested = reference.includes('@') ? reference : `${reference}@${target.digest}`;
  await withRegistry(
    t,
    destination,
    (client) =>
      reading(t, async (ctx) => {
        reporter.report({ event: `Pushing to ${label}` });
        reporter.report({ event: 'pushing content', name, desc });
        {
          using observer = new BlobProgress(reporter, name, 'uploading');
          const sink = {
            host: hostLabel(client.reference),
            put: (...args: Parameters<typeof client.put>) => client.put(...args),
          };
          const platforms = source.platforms.map(platformOf);
          await pushImage(host.db, ctx, sink, target, { platforms, atOnce: BLOBS_AT_ONCE, observer });
        }
        reporter.report({ event: 'pushed content', name, desc });
        reporter.report({ event: `Completed push to ${label}`, desc });
      }),
    digested,
  );
}
