/**
 * The records of a synthetic store, ordered so that everything exists before it is referenced, except by
 * labels of the same image. The loader writes them; the benchmarks pass them to the peer as lines of JSON.
 */
import { Label } from '../model/labels.js';
import type { StringMap } from '../model/records.js';
import { chance, digestFor, idFor } from './picks.js';
import { drawImage, type ImageDraw, type Plan } from './shape.js';

export const snapshotterName = 'overlayfs';
export const indexMediaType = 'application/vnd.oci.image.index.v1+json';
export const runtimeName = 'io.containerd.runc.v2';

/** Times are milliseconds before (created) or after (expires) the time of loading. */
export type SynthRecord =
  | { kind: 'namespace'; namespace: string; labels: StringMap }
  | {
      kind: 'blob';
      namespace: string;
      digest: string;
      sizeBytes: number;
      createdMsAgo: number;
      labels: StringMap;
    }
  | {
      kind: 'snapshot';
      namespace: string;
      key: string;
      /** '' for none. */
      parent: string;
      createdMsAgo: number;
      labels: StringMap;
    }
  | {
      kind: 'image';
      namespace: string;
      name: string;
      digest: string;
      sizeBytes: number;
      createdMsAgo: number;
      labels: StringMap;
    }
  | {
      kind: 'container';
      namespace: string;
      id: string;
      image: string;
      createdMsAgo: number;
      labels: StringMap;
    }
  | { kind: 'ingest'; namespace: string; ref: string; expected: string; expiresInMs: number }
  | {
      kind: 'lease';
      namespace: string;
      id: string;
      createdMsAgo: number;
      expiresInMs: number;
      content: string;
      snapshot: string;
    };

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
const INDEX_BYTES = 1400;
const MANIFEST_BYTES = 2400;
const CONFIG_BYTES = 7000;
const MIB = 1024 * 1024;

/** Names and digests of one image. */
export interface ImageNames {
  name: string;
  repository: string;
  index: string;
  manifest: string;
  config: string;
  layers: string[];
  /** Digests of the layers' uncompressed bytes. */
  diffIds: string[];
  /** Snapshot keys, lowest first: each a digest over all layers up to it. */
  chain: string[];
  /** The last of the chain. */
  top: string;
}

export function imageNames(plan: Plan, draw: ImageDraw): ImageNames {
  const { seed, layers: layerCount } = plan.shape;
  const { index, position } = draw;
  const repository = `team-${position % 97}/service-${position}`;
  const layers: string[] = [];
  const diffIds: string[] = [];
  const chain: string[] = [];
  for (let i = 0; i < layerCount; i++) {
    // A base has the same digests in every namespace.
    const layer = i < plan.sharedLayers ? digestFor(seed, draw.base, i) : digestFor(seed, 'layer', index, i);
    const diffId = digestFor('uncompressed', layer);
    const below = chain.at(-1);
    layers.push(layer);
    diffIds.push(diffId);
    chain.push(below === undefined ? diffId : digestFor(below, diffId));
  }
  return {
    name: `registry.example.com/${repository}:v1.${position % 13}.0`,
    repository,
    index: digestFor(seed, 'index', index),
    manifest: digestFor(seed, 'manifest', index),
    config: digestFor(seed, 'config', index),
    layers,
    diffIds,
    chain,
    top: chain.at(-1) ?? '',
  };
}

/** All records of a plan; the counts by kind are `plan.counts`, plus one for each namespace. */
export function* synthRecords(plan: Plan): Generator<SynthRecord> {
  for (const namespace of plan.namespaces) yield { kind: 'namespace', namespace, labels: { owner: 'synth' } };
  const bases = new Set<string>();
  for (let index = 0; index < plan.images; index++) {
    const draw = drawImage(plan.shape, index);
    const base = `${draw.namespace} ${draw.base}`;
    yield* imageRecords(plan, draw, !bases.has(base));
    bases.add(base);
  }
}

function* imageRecords(plan: Plan, draw: ImageDraw, withBase: boolean): Generator<SynthRecord> {
  const { namespace } = draw;
  const names = imageNames(plan, draw);
  const createdMsAgo = HOUR_MS + plan.images - draw.index;
  yield* contentRecords(plan, draw, names, withBase);
  let parent = '';
  for (const [i, key] of names.chain.entries()) {
    if (withBase || i >= plan.sharedLayers) {
      const labels = { [Label.snapshotRef]: key };
      yield { kind: 'snapshot', namespace, key, parent, createdMsAgo, labels };
    }
    parent = key;
  }
  if (!draw.gone) {
    yield {
      kind: 'image',
      namespace,
      name: names.name,
      digest: names.index,
      sizeBytes: INDEX_BYTES,
      createdMsAgo,
      labels: { 'io.cri-containerd.image': 'managed' },
    };
  }
  for (let i = 0; i < draw.containers; i++) {
    const id = idFor(plan.shape.seed, 'container', draw.index, i);
    yield { kind: 'snapshot', namespace, key: id, parent, createdMsAgo, labels: {} };
    yield {
      kind: 'container',
      namespace,
      id,
      image: names.name,
      createdMsAgo,
      labels: {
        'io.cri-containerd.kind': 'container',
        'io.kubernetes.container.name': 'app',
        'io.kubernetes.pod.name': `service-${draw.position}-${id.slice(0, 10)}`,
        'io.kubernetes.pod.namespace': 'default',
      },
    };
  }
  yield* temporaryRecords(plan, draw, names, createdMsAgo);
}

function* contentRecords(
  plan: Plan,
  draw: ImageDraw,
  names: ImageNames,
  withBase: boolean,
): Generator<SynthRecord> {
  const createdMsAgo = HOUR_MS + plan.images - draw.index;
  const source = { [`${Label.distributionSource}.registry.example.com`]: names.repository };
  const blob = (digest: string, sizeBytes: number, labels: StringMap): SynthRecord => ({
    kind: 'blob',
    namespace: draw.namespace,
    digest,
    sizeBytes,
    createdMsAgo,
    labels: { ...labels, ...source },
  });
  const children: Record<string, string> = { [`${Label.gcRefContent}.config`]: names.config };
  for (const [i, layer] of names.layers.entries()) children[`${Label.gcRefContent}.l.${i}`] = layer;
  yield blob(names.index, INDEX_BYTES, { [`${Label.gcRefContent}.m.0`]: names.manifest });
  yield blob(names.manifest, MANIFEST_BYTES, children);
  yield blob(names.config, CONFIG_BYTES, {
    [`${Label.gcRefSnapshot}.${snapshotterName}`]: names.top,
  });
  for (const [i, layer] of names.layers.entries()) {
    if (!withBase && i < plan.sharedLayers) continue;
    const sizeBytes = Math.floor((1 + 60 * chance('size of', layer)) * MIB);
    yield blob(layer, sizeBytes, { [Label.uncompressed]: names.diffIds[i] ?? '' });
  }
}

/** An unfinished upload and a lease, if the image has them. */
function* temporaryRecords(
  plan: Plan,
  draw: ImageDraw,
  names: ImageNames,
  createdMsAgo: number,
): Generator<SynthRecord> {
  const { namespace, index } = draw;
  if (draw.ingest !== 'none') {
    yield {
      kind: 'ingest',
      namespace,
      ref: `layer-${digestFor(plan.shape.seed, 'ingest', index)}`,
      expected: digestFor(plan.shape.seed, 'expected', index),
      expiresInMs: draw.ingest === 'live' ? DAY_MS : -HOUR_MS,
    };
  }
  if (draw.lease !== 'none') {
    yield {
      kind: 'lease',
      namespace,
      id: `lease-${index}`,
      createdMsAgo,
      expiresInMs: draw.lease === 'live' ? 10 * DAY_MS : -HOUR_MS,
      content: names.manifest,
      snapshot: names.top,
    };
  }
}
