/**
 * The shape of a synthetic store: a dense container host, described by a few means and ratios. Called by the
 * loader and the benchmarks; pure. `planFor` computes the totals of a shape before a record is created, so
 * that a loader can be checked against them.
 *
 * An image is an index, a manifest, a config and layers, the lower ones from a base that other images share;
 * each layer has a snapshot on top of the one below. Bases are chosen among those that exist when the image
 * is added, so that old bases are popular and a smaller store is a prefix of a larger one. Garbage is what
 * removed images have left, and expired leases and ingests.
 */
import { invalidArgument } from '../errors.js';
import { chance, countFor } from './picks.js';

export interface Shape {
  seed: string;
  namespaces: number;
  /** Layers of an image. */
  layers: number;
  /** Fraction of an image's layers that comes from a base. */
  shared: number;
  /** Images of a namespace for each of its bases. */
  imagesPerBase: number;
  /** Fraction of the images that is removed and has left its content and snapshots. */
  garbage: number;
  /** Containers for each image that exists. */
  containers: number;
  /** Leases for each image that exists; each refers to a manifest and a snapshot. */
  leases: number;
  leasesExpired: number;
  /** Unfinished uploads for each image. */
  ingests: number;
  ingestsExpired: number;
}

export const denseHost: Readonly<Shape> = {
  seed: 'ebbtide',
  namespaces: 4,
  layers: 8,
  shared: 0.5,
  imagesPerBase: 20,
  garbage: 0.1,
  containers: 0.5,
  leases: 0.02,
  leasesExpired: 0.25,
  ingests: 0.02,
  ingestsExpired: 0.5,
};

/** Records by kind. */
export interface Counts {
  images: number;
  blobs: number;
  snapshots: number;
  containers: number;
  ingests: number;
  leases: number;
}
export const noRecords: Readonly<Counts> = {
  images: 0,
  blobs: 0,
  snapshots: 0,
  containers: 0,
  ingests: 0,
  leases: 0,
};
export const sum = (counts: Readonly<Counts>): number =>
  counts.images + counts.blobs + counts.snapshots + counts.containers + counts.ingests + counts.leases;

/** The random choices for one image. */
export interface ImageDraw {
  index: number;
  namespace: string;
  /** Position within its namespace. */
  position: number;
  gone: boolean;
  base: string;
  containers: number;
  lease: 'none' | 'live' | 'expired';
  ingest: 'none' | 'live' | 'expired';
}

export interface Plan {
  /** Records requested. */
  readonly records: number;
  readonly shape: Readonly<Shape>;
  /** Images chosen, including removed ones. */
  readonly images: number;
  readonly sharedLayers: number;
  readonly namespaces: readonly string[];
  /** Records of the store as loaded. */
  readonly counts: Readonly<Counts>;
  /** The part of them that one collection removes. */
  readonly garbage: Readonly<Counts>;
  /** References between records, and to content that never arrived. */
  readonly edges: number;
  /** Whether any existing image uses the base. */
  baseIsLive(namespace: string, base: string): boolean;
}

const namespaceName = (i: number): string => (i === 0 ? 'k8s.io' : `tenant-${String(i).padStart(2, '0')}`);

export function drawImage(shape: Readonly<Shape>, index: number): ImageDraw {
  const { seed } = shape;
  const position = Math.floor(index / shape.namespaces);
  const gone = chance(seed, 'gone', index) < shape.garbage;
  const bases = 1 + Math.floor(position / shape.imagesPerBase);
  const expiry = (what: string, share: number): 'live' | 'expired' =>
    chance(seed, `${what}-expired`, index) < share ? 'expired' : 'live';
  const leased = !gone && chance(seed, 'lease', index) < shape.leases;
  const uploading = chance(seed, 'ingest', index) < shape.ingests;
  return {
    index,
    namespace: namespaceName(index % shape.namespaces),
    position,
    gone,
    base: `base-${Math.floor(chance(seed, 'base', index) * bases)}`,
    containers: gone ? 0 : countFor(shape.containers, seed, 'containers', index),
    lease: leased ? expiry('lease', shape.leasesExpired) : 'none',
    ingest: uploading ? expiry('ingest', shape.ingestsExpired) : 'none',
  };
}

/**
 * A store of at least `records` records, by less than one image. InvalidArgument for a shape that makes no
 * sense.
 */
export function planFor(records: number, shape: Readonly<Shape> = denseHost): Plan {
  validate(records, shape);
  const sharedLayers = Math.round(shape.layers * shape.shared);
  const ownLayers = shape.layers - sharedLayers;
  const counts: Counts = { ...noRecords };
  const garbage: Counts = { ...noRecords };
  const live = new Map<string, boolean>();
  let edges = 0;
  let images = 0;
  for (; sum(counts) < records; images++) {
    const draw = drawImage(shape, images);
    const base = `${draw.namespace} ${draw.base}`;
    const isNew = sharedLayers > 0 && !live.has(base);
    live.set(base, live.get(base) === true || !draw.gone);
    const layers = ownLayers + (isNew ? sharedLayers : 0);
    countImage(draw, layers, counts);
    countGarbage(draw, ownLayers, garbage);
    // Each snapshot refers to the one below, except the lowest.
    edges += edgesOf(draw, shape.layers) + layers - (isNew || sharedLayers === 0 ? 1 : 0);
  }
  for (const isLive of live.values()) {
    if (isLive) continue;
    garbage.blobs += sharedLayers;
    garbage.snapshots += sharedLayers;
  }
  return {
    records,
    shape: { ...shape },
    images,
    sharedLayers,
    namespaces: Array.from({ length: shape.namespaces }, (_, i) => namespaceName(i)),
    counts,
    garbage,
    edges,
    baseIsLive: (namespace, base) => live.get(`${namespace} ${base}`) === true,
  };
}

/** Adds an image with so many layers that were not there before, and what belongs to it. */
function countImage(draw: ImageDraw, layers: number, counts: Counts): void {
  counts.blobs += 3 + layers;
  counts.snapshots += layers + draw.containers;
  counts.containers += draw.containers;
  if (!draw.gone) counts.images++;
  if (draw.lease !== 'none') counts.leases++;
  if (draw.ingest !== 'none') counts.ingests++;
}

/** Adds what nothing else keeps: layers of bases are counted when it is known which of these live. */
function countGarbage(draw: ImageDraw, ownLayers: number, garbage: Counts): void {
  if (draw.gone) {
    garbage.blobs += 3 + ownLayers;
    garbage.snapshots += ownLayers;
  }
  if (draw.lease === 'expired') garbage.leases++;
  if (draw.ingest === 'expired') garbage.ingests++;
}

/** index → manifest → config and layers; config → snapshot; and those of what uses the image. */
function edgesOf(draw: ImageDraw, layers: number): number {
  const users = draw.gone ? 0 : 1 + 2 * draw.containers;
  return 3 + layers + users + (draw.lease === 'none' ? 0 : 2) + (draw.ingest === 'none' ? 0 : 1);
}

function validate(records: number, shape: Readonly<Shape>): void {
  const demand = (ok: boolean, name: string, rule: string): void => {
    if (!ok) throw invalidArgument(`synthetic store: ${name} must be ${rule}`, { object: name });
  };
  const atLeast = (name: string, value: number, least: number): void =>
    demand(Number.isSafeInteger(value) && value >= least, name, `a whole number of at least ${least}`);
  atLeast('records', records, 1);
  atLeast('namespaces', shape.namespaces, 1);
  atLeast('layers', shape.layers, 1);
  atLeast('imagesPerBase', shape.imagesPerBase, 1);
  for (const name of ['shared', 'garbage', 'leases', 'leasesExpired', 'ingests', 'ingestsExpired'] as const) {
    demand(shape[name] >= 0 && shape[name] <= 1, name, 'between 0 and 1');
  }
  demand(shape.containers >= 0 && shape.containers <= 1000, 'containers', 'between 0 and 1000');
}
