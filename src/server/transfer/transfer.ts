/**
 * containerd.services.transfer.v1.Transfer: imports and exports archives over named streams, and tags images, as `ctr` 2.x asks for
 * it. What it cannot do as asked is Unimplemented before anything is changed: registries (pull, push), and the options of archives
 * that are named below.
 */
import { requireNamespace } from '../../context.js';
import {
  type EbbtideError,
  invalidArgument,
  isAlreadyExists,
  notImplemented,
  orAborted,
} from '../../errors.js';
import { exportImages } from '../../images/export.js';
import { importImage } from '../../images/import.js';
import type { Call } from '../call.js';
import type { AnyMessage } from '../messages/messages.js';
import { EMPTY, type Service, type ServiceHost, unary } from '../service.js';
import { messageIn, typeOf } from './any.js';
import { ByteSender, received } from './bytes.js';
import { checkReferences, entryNames, exportName } from './image-names.js';
import {
  type ExportStreamMessage,
  type ImageStoreMessage,
  type ImportStreamMessage,
  platformOf,
  type TransferRequest,
  types,
} from './messages.js';
import { Reporter } from './progress.js';
import type { NamedStream, Streams } from './streams.js';
import { unpackFor, unpacksOf } from './unpacks.js';

export const transferService = (host: ServiceHost, streams: Streams): Service => ({
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
        await transfer({ host, call, take, reporter }, source, destination);
      } finally {
        await reporter.close();
      }
      return EMPTY;
    }),
  },
});

/** One transfer under way. */
interface Transfer {
  host: ServiceHost;
  call: Call;
  /** The stream of this id; the caller closes it. */
  take(id: string): NamedStream;
  reporter: Reporter;
}

function transfer(t: Transfer, source: AnyMessage, destination: AnyMessage): Promise<void> {
  const [from, to] = [typeOf(source), typeOf(destination)];
  if (to === types.imageStore) {
    const store = messageIn<ImageStoreMessage>(to, destination);
    if (from === types.imageStore) return tag(t, messageIn<ImageStoreMessage>(from, source), store);
    if (from === types.importStream)
      return importStream(t, messageIn<ImportStreamMessage>(from, source), store);
  }
  if (from === types.imageStore && to === types.exportStream) {
    const output = messageIn<ExportStreamMessage>(to, destination);
    return exportStream(t, messageIn<ImageStoreMessage>(from, source), output);
  }
  throw notImplemented(`no transfer from ${from || 'nothing'} to ${to || 'nothing'}`, {
    remedy: 'use the services of images and content (`ctr`: --local)',
  });
}

/** A stream that also ends with the call that uses it, whatever its other end does. */
const untilAborted = (stream: NamedStream, signal: AbortSignal): NamedStream => ({
  receive: () => orAborted(stream.receive(), signal),
  send: (message) => orAborted(stream.send(message), signal),
  close: (error) => stream.close(error),
});

/** Runs `work` with a stream, which ends as it does. */
async function using(stream: NamedStream, work: () => Promise<void>): Promise<void> {
  try {
    await work();
    stream.close();
  } catch (error) {
    stream.close(error);
    throw error;
  }
}

async function importStream(
  t: Transfer,
  source: ImportStreamMessage,
  store: ImageStoreMessage,
): Promise<void> {
  const { host, call, reporter } = t;
  const references = store.extraReferences;
  checkReferences(references);
  if (store.name !== '') throw notHere('an image of the index of an archive (--index-name)');
  if (source.forceCompress) throw notHere('compressing what an archive has (--compress-blobs)');
  const unpacks = unpacksOf(host, store.unpacks);
  const stream = t.take(source.stream);
  await using(stream, async () => {
    reporter.report({ event: 'Importing' });
    const bytes = received(stream);
    const images = await importImage(host.db, call.cancellable, lent(bytes), {
      names: (annotations, digest) => entryNames(references, annotations, digest),
      ...(Object.keys(store.labels).length > 0 && { labels: store.labels }),
    });
    // What follows the archive's end: a sender that cannot send it takes that for a failure.
    for await (const _ of bytes);
    for (const unpack of unpacks) await unpackFor(host.db, call.cancellable, images, unpack);
    for (const { name, target } of images) reporter.report({ event: 'saved', name, desc: target });
    reporter.report({ event: 'Completed import' });
  });
}

/** The same bytes for a reader that may stop before their end. */
const lent = (bytes: AsyncIterator<Uint8Array>): AsyncIterable<Uint8Array> => ({
  [Symbol.asyncIterator]: () => ({ next: () => bytes.next() }),
});

async function exportStream(
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

/** The new name has the labels of the request, not those of the image that it is a name for. */
async function tag(
  { host, call }: Transfer,
  source: ImageStoreMessage,
  store: ImageStoreMessage,
): Promise<void> {
  checkReferences(store.extraReferences);
  const images = host.db.images;
  const { target } = await images.get(call.context, source.name);
  const others = store.extraReferences.filter(({ isPrefix }) => !isPrefix);
  const names = [
    ...(store.name === '' ? [] : [store.name]),
    ...others.map(({ name, addDigest }) => (addDigest ? `${name}@${target.digest}` : name)),
  ];
  if (names.length === 0) throw invalidArgument('the destination has no image name');
  for (const name of names) {
    const image = { name, target, labels: store.labels };
    try {
      await images.create(call.context, image);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      await images.update(call.context, image);
    }
  }
}

const notHere = (what: string): EbbtideError =>
  notImplemented(`${what} is not here`, { remedy: 'let the client do it (`ctr`: --local)' });
