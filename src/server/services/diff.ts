/**
 * containerd.services.diff.v1.Diff: layers into snapshots and out of them, with the archive code of this package, which
 * works on the directories behind the mounts. Only directories of this root's snapshotters are written or read: the
 * mounts come from the client, and a client is not to reach the rest of the host through the daemon.
 */
import { resolve, sep } from 'node:path';
import { applyLayer } from '../../backends/archive/apply.js';
import { readableTarget } from '../../backends/archive/target.js';
import type { Mount } from '../../backends/contract.js';
import { layout } from '../../db.js';
import { invalidArgument, notImplemented } from '../../errors.js';
import type { StringMap } from '../../model/records.js';
import type { Call } from '../call.js';
import { givenInstant, mountOf } from '../convert.js';
import type { DescriptorMessage, MountMessage, Timestamp } from '../messages.js';
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

/** Answers the layer as it is uncompressed: what an image's config names it by. */
async function apply(host: ServiceHost, request: ApplyRequest, call: Call): Promise<DescriptorMessage> {
  const { diff: layer } = request;
  if (layer === null) throw invalidArgument('the request names no layer');
  const mounts = ownMounts(host, request.mounts);
  await using reader = await host.db.content.readerAt(call.context, layer.digest);
  const { digest, size } = await applyLayer(mounts, reader.stream(), {
    mediaType: layer.mediaType,
    signal: call.signal,
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
    lower: ownMounts(host, request.left),
    upper: ownMounts(host, request.right),
    mediaType,
    compression,
    ref: request.ref,
    labels: request.labels,
  });
  return { mediaType, digest, size };
}

function ownMounts({ db, root }: ServiceHost, messages: readonly MountMessage[]): Mount[] {
  const mounts = messages.map(mountOf);
  if (mounts.length === 0) return mounts;
  const homes = [...db.snapshotters().keys()].map((name) => resolve(layout.snapshotter(root, name)) + sep);
  const { upper, lowers } = readableTarget(mounts);
  for (const directory of [upper, ...lowers]) {
    const path = resolve(Buffer.from(directory, 'latin1').toString());
    if (homes.some((home) => path.startsWith(home))) continue;
    throw invalidArgument(`the mount of ${path} is none of this store's snapshots`, {
      object: path,
      remedy: 'use the mounts that Snapshots.Mounts, Prepare or View answer',
    });
  }
  return mounts;
}
