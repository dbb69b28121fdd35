/**
 * `docker save` archives: their manifest.json lists configs and layers by path. Each image becomes a Docker
 * schema 2 manifest in the content store, with the same bytes for the same image, as in containerd.
 */
import { detectCompression, MAGIC_BYTES } from '../backends/archive/compression/compression.js';
import { invalidArgument } from '../errors.js';
import { digestOf } from '../model/digest.js';
import type { ArchiveFiles } from './archive-files.js';
import { ingestRef, type StoredBlob, writeBlob } from './content.js';
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
): Promise<Descriptor[]> {
  const maker = new ManifestMaker(services, ctx, files);
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
  /** By digest: images of one archive share layers. */
  readonly #layerTypes = new Map<string, string>();

  constructor(services: ImageServices, ctx: LeasedContext, files: ArchiveFiles) {
    this.#services = services;
    this.#ctx = ctx;
    this.#files = files;
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
    for (const path of image.layers) {
      const layer = await this.#find(path, 'layer');
      layers.push({ mediaType: await this.#layerType(layer), ...layer });
    }
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

  /** By the layer's first bytes; its name does not show it. */
  async #layerType(layer: StoredBlob): Promise<string> {
    const known = this.#layerTypes.get(layer.digest);
    if (known !== undefined) return known;
    const reader = await this.#services.content.readerAt(this.#ctx, layer.digest);
    try {
      const head = Buffer.alloc(MAGIC_BYTES);
      const count = await reader.read(head, 0);
      const type = layerTypes[detectCompression(head.subarray(0, count))];
      this.#layerTypes.set(layer.digest, type);
      return type;
    } finally {
      await reader.close();
    }
  }
}

const layerTypes = {
  none: MediaType.dockerLayer,
  gzip: MediaType.dockerLayerGzip,
  zstd: MediaType.dockerLayerZstd,
} as const;
