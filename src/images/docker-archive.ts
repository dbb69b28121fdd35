/**
 * `docker save` archives: their manifest.json lists configs and layers by path. Each image becomes a Docker
 * schema 2 manifest in the content store, with the same bytes for the same image, as in containerd.
 */
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { detectCompression, MAGIC_BYTES } from '../backends/archive/compression/compression.js';
import { invalidArgument } from '../errors.js';
import { digestOf } from '../model/digest.js';
import { Label } from '../model/labels.js';
import type { ArchiveFiles } from './archive-files.js';
import { addBlobLabels, ingestRef, type StoredBlob, writeBlob } from './content.js';
import {
  checkCount,
  type Descriptor,
  MAX_IMAGES,
  MAX_LAYERS,
  type Manifest,
  parseConfig,
  parseJson,
  readDocument,
} from './documents.js';
import { Annotation, MediaType } from './media-types.js';
import { normalizeDockerReference, refNameOf } from './names.js';
import { dirForm } from './other-forms.js';
import type { ImageServices, LeasedContext } from './services.js';

interface DockerImage {
  config: string;
  layers: string[];
  repoTags: string[];
}

/** One entry for each tag of each image; an untagged image has one without a name. */
export async function dockerEntries(
  services: ImageServices,
  ctx: LeasedContext,
  document: Buffer,
  files: ArchiveFiles,
  { compress = false }: { compress?: boolean | undefined } = {},
): Promise<Descriptor[]> {
  const maker = new ManifestMaker(services, ctx, files, compress);
  const entries: Descriptor[] = [];
  for (const image of parseDockerManifest(document)) {
    const descriptor = await maker.make(image);
    if (image.repoTags.length === 0) entries.push(descriptor);
    for (const tag of image.repoTags) {
      const name = normalizeDockerReference(tag);
      entries.push({
        ...descriptor,
        annotations: { [Annotation.imageName]: name, [Annotation.refName]: refNameOf(name) },
      });
    }
  }
  return entries;
}

/** The index that has the entries, with the bytes that containerd writes. */
export function indexOf(entries: readonly Descriptor[]): Buffer {
  const manifests = entries.map(({ mediaType, digest, size, annotations, platform }) => ({
    ...{ mediaType, digest, size },
    ...(annotations && { annotations }),
    ...(platform && {
      platform: {
        ...{ architecture: platform.architecture, os: platform.os },
        ...(platform.variant && { variant: platform.variant }),
      },
    }),
  }));
  return Buffer.from(JSON.stringify({ schemaVersion: 2, manifests }));
}

function parseDockerManifest(document: Buffer): DockerImage[] {
  const malformed = (what: string) =>
    invalidArgument(`manifest.json of the archive ${what}`, {
      remedy: 'write the archive again with docker save',
    });
  const json = parseJson(document, 'manifest.json') ?? [];
  if (typeof json === 'object' && 'schemaVersion' in json) {
    throw invalidArgument(`cannot import the archive: it is ${dirForm.what}`, { remedy: dirForm.remedy });
  }
  if (!Array.isArray(json)) throw malformed('is not a list');
  checkCount(json.length, 'manifest.json', MAX_IMAGES);
  return json.map((image: unknown) => {
    if (typeof image !== 'object' || image === null) throw malformed('has an entry that is not an image');
    const { Config, Layers, RepoTags }: { Config?: unknown; Layers?: unknown; RepoTags?: unknown } = image;
    if (typeof Config !== 'string' || Config === '') throw malformed('has an image without a config');
    const repoTags = texts(RepoTags, 'RepoTags', MAX_IMAGES).filter((tag) => tag !== '');
    return { config: Config, layers: texts(Layers, 'Layers', MAX_LAYERS), repoTags };
  });

  function texts(value: unknown, field: string, max: number): string[] {
    if (!Array.isArray(value ?? [])) throw malformed('has a value that is not a list where one belongs');
    checkCount(((value ?? []) as unknown[]).length, `manifest.json ${field}`, max);
    return ((value ?? []) as unknown[]).map((text) => {
      if (typeof (text ?? '') !== 'string')
        throw malformed('has a value that is not a string where one belongs');
      return (text ?? '') as string;
    });
  }
}

class ManifestMaker {
  readonly #services: ImageServices;
  readonly #ctx: LeasedContext;
  readonly #files: ArchiveFiles;
  readonly #compress: boolean;
  /** By digest: images of one archive share layers. */
  readonly #layers = new Map<string, Descriptor>();

  constructor(services: ImageServices, ctx: LeasedContext, files: ArchiveFiles, compress: boolean) {
    this.#services = services;
    this.#ctx = ctx;
    this.#files = files;
    this.#compress = compress;
  }

  async make(image: DockerImage): Promise<Descriptor> {
    const config: Descriptor = {
      mediaType: MediaType.dockerConfig,
      ...(await this.#find(image.config, 'config')),
    };
    const { diffIds, platform } = parseConfig(
      await readDocument(this.#services.content, this.#ctx, config),
      image.config,
    );
    if (diffIds.length !== image.layers.length) {
      throw invalidArgument(
        `config "${image.config}" names ${diffIds.length} layers, manifest.json ${image.layers.length}`,
        { object: image.config },
      );
    }
    const layers: Descriptor[] = [];
    for (const path of image.layers) layers.push(await this.#layer(await this.#find(path, 'layer')));
    const descriptor = await this.#store(image, { config, layers });
    return platform.os === '' ? descriptor : { ...descriptor, platform };
  }

  async #store(image: DockerImage, { config, layers }: Manifest): Promise<Descriptor> {
    const plain = ({ mediaType, size, digest }: Descriptor) => ({ mediaType, size, digest });
    const bytes = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: MediaType.dockerManifest,
        config: plain(config),
        layers: layers.map(plain),
      }),
    );
    const descriptor = { mediaType: MediaType.dockerManifest, digest: digestOf(bytes), size: bytes.length };
    await writeBlob(this.#services, this.#ctx, {
      ref: ingestRef(descriptor.digest),
      descriptor,
      source: bytes,
      name: `the manifest of "${image.config}"`,
    });
    return descriptor;
  }

  async #find(path: string, what: string): Promise<StoredBlob> {
    const found = await this.#files.find(path, what);
    if (found !== undefined) return { digest: found.digest, size: found.size };
    throw invalidArgument(`the archive does not have the ${what} "${path}" that its manifest.json names`, {
      object: path,
      remedy: 'the archive is incomplete: write it again with docker save',
    });
  }

  /** Its type is that of its first bytes; its name does not show it. */
  async #layer(blob: StoredBlob): Promise<Descriptor> {
    const known = this.#layers.get(blob.digest);
    if (known !== undefined) return known;
    const reader = await this.#services.content.readerAt(this.#ctx, blob.digest);
    try {
      const head = Buffer.alloc(MAGIC_BYTES);
      const count = await reader.read(head, 0);
      const mediaType = layerTypes[detectCompression(head.subarray(0, count))];
      const layer =
        this.#compress && mediaType === MediaType.dockerLayer
          ? await this.#compressed(blob.digest, reader.stream())
          : { mediaType, digest: blob.digest, size: blob.size };
      this.#layers.set(blob.digest, layer);
      return layer;
    } finally {
      await reader.close();
    }
  }

  async #compressed(digest: string, bytes: AsyncIterable<Uint8Array>): Promise<Descriptor> {
    const gzip = createGzip();
    // It ends with its source; an error of either is one of the bytes that are read.
    const source = pipeline(Readable.from(bytes, { objectMode: false }), gzip).catch((error: Error) =>
      gzip.destroy(error),
    );
    const stored = await writeBlob(this.#services, this.#ctx, {
      ...{ ref: `compress-blob-${digest.replace(':', '-')}`, descriptor: {}, source: gzip },
      name: `layer ${digest}`,
    });
    await source;
    await addBlobLabels(this.#services, this.#ctx, stored.digest, { [Label.uncompressed]: digest });
    return { mediaType: MediaType.dockerLayerGzip, digest: stored.digest, size: stored.size };
  }
}

const layerTypes = {
  none: MediaType.dockerLayer,
  gzip: MediaType.dockerLayerGzip,
  zstd: MediaType.dockerLayerZstd,
} as const;
