/** Media types of images and their meaning. Pure; called by everything in this room. */
import { Label, labelOf } from '../model/labels.js';
import type { StringMap } from '../model/records.js';

/** Media types of images. */
export const MediaType = {
  /** OCI's index. */
  ociIndex: 'application/vnd.oci.image.index.v1+json',
  /** OCI's manifest. */
  ociManifest: 'application/vnd.oci.image.manifest.v1+json',
  /** OCI's configuration of an image. */
  ociConfig: 'application/vnd.oci.image.config.v1+json',
  /** Docker's index. */
  dockerList: 'application/vnd.docker.distribution.manifest.list.v2+json',
  /** Docker's manifest. */
  dockerManifest: 'application/vnd.docker.distribution.manifest.v2+json',
  /** Docker's configuration of an image. */
  dockerConfig: 'application/vnd.docker.container.image.v1+json',
  /** Docker's layer, not compressed. */
  dockerLayer: 'application/vnd.docker.image.rootfs.diff.tar',
  /** Docker's layer, compressed by gzip. */
  dockerLayerGzip: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  /** Docker's layer, compressed by zstd. */
  dockerLayerZstd: 'application/vnd.docker.image.rootfs.diff.tar.zstd',
} as const;

export const Annotation = {
  /** Full image name, as containerd writes it. */
  imageName: 'io.containerd.image.name',
  /** Tag, or whatever an OCI tool wrote. */
  refName: 'org.opencontainers.image.ref.name',
  /** Docker's mark on manifests that describe another one. */
  referenceType: 'vnd.docker.reference.type',
  /** The described manifest. */
  referenceDigest: 'vnd.docker.reference.digest',
  manifestSubject: 'io.containerd.manifest.subject',
} as const;

export const isIndexType = (type: string): boolean =>
  type === MediaType.ociIndex || type === MediaType.dockerList;
export const isManifestType = (type: string): boolean =>
  type === MediaType.ociManifest || type === MediaType.dockerManifest;

const configTypes: ReadonlySet<string> = new Set([
  MediaType.ociConfig,
  MediaType.dockerConfig,
  'application/vnd.containerd.container.criu.checkpoint.criu.tar',
  'application/vnd.containerd.container.checkpoint.config.v1+proto',
]);

const layerBases: ReadonlySet<string> = new Set([
  MediaType.dockerLayer,
  MediaType.dockerLayerGzip,
  MediaType.dockerLayerZstd,
  'application/vnd.docker.image.rootfs.foreign.diff.tar',
  'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
]);

const isLayerType = (type: string): boolean =>
  type.startsWith('application/vnd.oci.image.layer.') || layerBases.has(type.replace(/\+.*$/s, ''));

/** Layers that need not be present (their licence forbids copies). */
export const isNonDistributable = (type: string): boolean =>
  type.startsWith('application/vnd.oci.image.layer.nondistributable.') ||
  type.startsWith('application/vnd.docker.image.rootfs.foreign.');

/** As containerd names the work on a blob: `layer-sha256:…`. */
export function workName({ mediaType, digest }: { mediaType: string; digest: string }): string {
  if (isManifestType(mediaType)) return `manifest-${digest}`;
  if (isIndexType(mediaType)) return `index-${digest}`;
  if (isLayerType(mediaType)) return `layer-${digest}`;
  if (configTypes.has(mediaType)) return `config-${digest}`;
  return mediaType === 'application/vnd.in-toto+json' ? `attestation-${digest}` : `unknown-${digest}`;
}

export const isConfigType = (type: string): boolean =>
  type === MediaType.ociConfig || type === MediaType.dockerConfig;

const imageConfigs: ReadonlySet<string> = new Set([
  MediaType.ociConfig,
  MediaType.dockerConfig,
  // What early schema 2 writers wrote.
  'application/octet-stream',
]);

/**
 * Whether a manifest is an image: charts, signatures and other artifacts have another config or layers that
 * are not file systems.
 */
export const isImageManifest = (manifest: {
  config: { mediaType: string };
  layers: readonly { mediaType: string }[];
}): boolean =>
  imageConfigs.has(manifest.config.mediaType) &&
  (manifest.layers.length === 0 || manifest.layers.some(({ mediaType }) => isLayerType(mediaType)));

/** A child of a blob, for its reference label. */
export interface LabelledChild {
  /** Of the child. */
  mediaType: string;
  /** Of the child. */
  digest: string;
  /** Of the descriptor. */
  annotations?: StringMap | undefined;
}

/**
 * The labels by which a blob keeps its children, with containerd's keys: `…content.config`, `…content.m.<i>`
 * for manifests, `…content.l.<i>` for layers, `…content.<i>` for the rest; each kind is counted separately.
 */
export function childLabels(children: readonly LabelledChild[]): Record<string, string> {
  const labels: Record<string, string> = {};
  const counts = new Map<string, number>();
  for (const child of children) {
    const key = childKey(child);
    const index = counts.get(key) ?? 0;
    counts.set(key, index + 1);
    if (key.endsWith('.sha256.'))
      labels[key + (child.digest.split(':')[1] ?? '').slice(0, 12)] = child.digest;
    else if (index > 0 || key.endsWith('.')) labels[`${key}${index}`] = child.digest;
    else labels[key] = child.digest;
  }
  return labels;
}

function childKey({ mediaType, annotations }: LabelledChild): string {
  if (labelOf(annotations, Annotation.manifestSubject) !== undefined)
    return `${Label.gcRefContent}.referrer.sha256.`;
  if (configTypes.has(mediaType)) return `${Label.gcRefContent}.config`;
  if (isManifestType(mediaType)) return `${Label.gcRefContent}.m.`;
  if (isLayerType(mediaType)) return `${Label.gcRefContent}.l.`;
  return `${Label.gcRefContent}.`;
}
