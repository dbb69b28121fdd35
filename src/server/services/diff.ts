/**
 * containerd.services.diff.v1.Diff: applies layers to snapshots and creates layers from them, with this
 * package's archive code, which works on the directories of the mounts. The mounts come from the client,
 * and a client must not reach the rest of the host, or what belongs to others, through the daemon: so they
 * only identify a snapshot of the caller's namespace, and the store's own mounts of it are used. One layer at
 * a time is written to a snapshot.
 */
import { applyDetached, applyLayer } from '../../backends/archive/apply.js';
import { showPath } from '../../backends/archive/paths.js';
import { bindOfDetached, readableTarget } from '../../backends/archive/target.js';
import { chunksOf } from '../../backends/content/chunks-of.js';
import type { Mount, MountOwner } from '../../backends/contract.js';
import type { CallContext } from '../../context.js';
import { failedPrecondition, invalidArgument, notImplemented } from '../../errors.js';
import type { StringMap } from '../../model/records.js';
import type { Snapshotter } from '../../stores/snapshots.js';
import type { Call } from '../call.js';
import { givenInstant, mountOf } from '../messages/convert.js';
import type { DescriptorMessage, MountMessage, Timestamp } from '../messages/messages.js';
import { type Service, type ServiceHost, unary } from '../service.js';
import { isLayerCompression, type LayerCompression, writeDiff } from './diff-write.js';

interface ApplyRequest {
  diff: DescriptorMessage | null;
  mounts: MountMessage[];
}
interface DiffRequest {
  left: MountMessage[];
  right: MountMessage[];
  mediaType: string;
  ref: string;
  labels: StringMap;
  sourceDateEpoch: Timestamp | null;
}

const PLAIN_LAYER = 'application/vnd.oci.image.layer.v1.tar';
const GZIP_LAYER = `${PLAIN_LAYER}+gzip`;
const compressions: Readonly<Record<string, LayerCompression>> = {
  [PLAIN_LAYER]: 'none',
  [GZIP_LAYER]: 'gzip',
};

export function diffService(host: ServiceHost): Service {
  return {
    name: 'containerd.services.diff.v1.Diff',
    methods: {
      Apply: unary(async (request: ApplyRequest, call) => ({ applied: await apply(host, request, call) })),
      Diff: unary(async (request: DiffRequest, call) => ({ diff: await diff(host, request, call) })),
    },
  };
}

/** Returns the uncompressed layer's descriptor, by which an image's config names it. */
async function apply(host: ServiceHost, request: ApplyRequest, call: Call): Promise<DescriptorMessage> {
  const { diff: layer } = request;
  if (layer === null) throw invalidArgument('the request names no layer');
  await using reader = await host.db.content.readerAt(call.context, layer.digest);
  const given = request.mounts.map(mountOf);
  const bind = bindOfDetached(given);
  const { snapshotter, key, writable } = await snapshotOf(host, call.context, bind ?? given);
  const isDetached = bind !== undefined;
  if (isDetached && !snapshotter.rebases) {
    throw notImplemented(`snapshotter "${snapshotter.name}" has no snapshots that get their parents later`, {
      object: key,
    });
  }
  if (!writable) {
    throw failedPrecondition(`snapshot "${key}" is mounted read-only`, {
      object: key,
      remedy: 'use the mounts of an active snapshot',
    });
  }
  const { digest, size } = await snapshotter.write(call.context, key, async (mounts, removal) => {
    const options = { mediaType: layer.mediaType, signal: AbortSignal.any([call.signal, removal]) };
    // Its client commits it as it is, whatever it will be on.
    if (isDetached) return (await applyDetached(mounts, chunksOf(reader), options)).applied;
    return applyLayer(mounts, chunksOf(reader), options);
  });
  return { mediaType: PLAIN_LAYER, digest, size };
}

async function diff(host: ServiceHost, request: DiffRequest, call: Call): Promise<DescriptorMessage> {
  const mediaType = request.mediaType || GZIP_LAYER;
  const compression = Object.hasOwn(compressions, mediaType) ? compressions[mediaType] : undefined;
  if (!isLayerCompression(compression)) {
    throw notImplemented(`unsupported diff media type: ${mediaType}`, { object: mediaType });
  }
  if (givenInstant(request.sourceDateEpoch) !== undefined) {
    throw notImplemented('a layer with the times of a source date epoch is not supported');
  }
  const { digest, size } = await writeDiff(host.db.content, call.cancellable, {
    lower: request.left.length === 0 ? [] : await ownMounts(host, call.context, request.left),
    upper: await ownMounts(host, call.context, request.right),
    mediaType,
    compression,
    ref: request.ref,
    labels: request.labels,
  });
  return { mediaType, digest, size };
}

async function ownMounts(
  host: ServiceHost,
  ctx: CallContext,
  messages: readonly MountMessage[],
): Promise<readonly Mount[]> {
  return (await snapshotOf(host, ctx, messages.map(mountOf))).mounts;
}

/** The snapshot of the caller's namespace that the mounts identify. */
async function snapshotOf(
  { db }: ServiceHost,
  ctx: CallContext,
  mounts: readonly Mount[],
): Promise<MountOwner & { snapshotter: Snapshotter }> {
  // For mounts that no snapshotter here makes: the reason why they are refused.
  const { upper } = readableTarget(mounts);
  for (const snapshotter of db.snapshotters().values()) {
    const owner = await snapshotter.ownerOf(ctx, mounts);
    if (owner !== undefined) return { ...owner, snapshotter };
  }
  const path = showPath(upper);
  throw invalidArgument(`the mount of ${path} is not a snapshot of this namespace`, {
    object: path,
    remedy: 'use the mounts that Snapshots.Mounts, Prepare or View return',
  });
}
