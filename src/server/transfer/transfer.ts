/**
 * containerd.services.transfer.v1.Transfer: pulls images from registries and pushes them there, imports and exports archives over named streams, and tags
 * images, as `ctr` 2.x asks for it. What it cannot do as asked is Unimplemented before anything is changed.
 */
import { requireNamespace } from '../../context.js';
import { invalidArgument, notImplemented } from '../../errors.js';
import type { AnyMessage } from '../messages/messages.js';
import { EMPTY, type Service, type ServiceHost, unary } from '../service.js';
import { messageIn, typeOf } from './any.js';
import { exportStream, importStream } from './archives.js';
import { checkReferences } from './image-names.js';
import {
  type ExportStreamMessage,
  type ImageStoreMessage,
  type ImportStreamMessage,
  type RegistryMessage,
  type TransferRequest,
  types,
} from './messages.js';
import { Reporter } from './progress.js';
import { pull } from './pull.js';
import { push } from './push.js';
import { namesIn, saveImages } from './save.js';
import type { NamedStream, Streams } from './streams.js';
import { Places, type Transfer, untilAborted } from './under-way.js';

/** Of a transfer under way: pieces of what it moves, and a document or two. */
const KEEPS_BYTES = 2 ** 20;

export const transferService = (
  host: ServiceHost,
  streams: Streams,
  places: Places = new Places(),
): Service => ({
  name: 'containerd.services.transfer.v1.Transfer',
  methods: {
    Transfer: unary(async (request: TransferRequest, call) => {
      const { source, destination, options } = request;
      if (source === null || destination === null) {
        throw invalidArgument('a transfer has a source and a destination');
      }
      const namespace = requireNamespace(call.context);
      const take = (id: string): NamedStream => untilAborted(streams.take(namespace, id), call.signal);
      const progress = options?.progressStream ? take(options.progressStream) : undefined;
      const reporter = new Reporter(progress);
      try {
        await transfer({ host, call, take, reporter, places }, source, destination);
      } finally {
        await reporter.close();
      }
      return EMPTY;
    }, KEEPS_BYTES),
  },
});

function transfer(t: Transfer, source: AnyMessage, destination: AnyMessage): Promise<void> {
  const [from, to] = [typeOf(source), typeOf(destination)];
  if (to === types.imageStore) {
    const store = messageIn<ImageStoreMessage>(to, destination);
    if (from === types.imageStore) return tag(t, messageIn<ImageStoreMessage>(from, source), store);
    if (from === types.registry) {
      return t.places.within(() => pull(t, messageIn<RegistryMessage>(from, source), store));
    }
    if (from === types.importStream)
      return importStream(t, messageIn<ImportStreamMessage>(from, source), store);
  }
  if (from === types.imageStore && to === types.exportStream) {
    const output = messageIn<ExportStreamMessage>(to, destination);
    return exportStream(t, messageIn<ImageStoreMessage>(from, source), output);
  }
  if (from === types.imageStore && to === types.registry) {
    const registry = messageIn<RegistryMessage>(to, destination);
    return t.places.within(() => push(t, messageIn<ImageStoreMessage>(from, source), registry));
  }
  throw notImplemented(`no transfer from ${from || 'nothing'} to ${to || 'nothing'}`, {
    remedy: 'use the services of images and content (`ctr`: --local)',
  });
}

/** The new name has the labels of the request, not those of the image that it is a name for. */
async function tag(
  { host, call }: Transfer,
  source: ImageStoreMessage,
  store: ImageStoreMessage,
): Promise<void> {
  checkReferences(store.extraReferences);
  const { target } = await host.db.images.get(call.context, source.name);
  await saveImages(host.db, call.context, namesIn(store, target.digest), target, store.labels);
}
