/**
 * `docker save` archives: their manifest.json lists configs and layers by path; each image becomes a manifest of
 * Docker's schema 2 in the content store, the same bytes for the same image, as containerd makes it.
 */
import { detectCompression, MAGIC_BYTES } from '../backends/archive/compression.js';
import { showPath, splitEntryName, toBytePath } from '../backends/archive/paths.js';
import { invalidArgument } from '../errors.js';
import { digestOf } from '../model/digest.js';
import type { Contents } from './archive.js';
import { ingestRef, type Taken, takeBlob } from './content.js';
import { type Descriptor, parseConfig, parseJson, readDocument } from './documents.js';
import { Annotation, MediaType } from './media-types.js';
import { normalizeDockerReference, refNameOf } from './names.js';
import type { ImageServices, LeasedContext } from './services.js';

interface DockerImage {
  config: string;
  layers: string[];
  repoTags: string[];
}

const MAX_LINK_HOPS = 16;

/** One entry for each tag of each image; an untagged image has one without a name. */
export async function dockerEntries(
  services: ImageServices,
  ctx: LeasedContext,
  document: Buffer,
  contents: Contents,
): Promise<Descriptor[]> {
  const entries: Descriptor[] = [];
  for (const image of parseDockerManifest(document)) {
    const descriptor = await makeManifest(services, ctx, image, contents);
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
  const json = parseJson(document, 'manifest.json');
  if (!Array.isArray(json)) throw malformed('is no list');
  return json.map((image: unknown) => {
    if (typeof image !== 'object' || image === null) throw malformed('holds something that is no image');
    const { Config, Layers, RepoTags }: { Config?: unknown; Layers?: unknown; RepoTags?: unknown } = image;
    if (typeof Config !== 'string') throw malformed('has an image without a config');
    return { config: Config, layers: texts(Layers ?? []), repoTags: texts(RepoTags ?? []) };
  });

  function texts(value: unknown): string[] {
    if (!Array.isArray(value)) throw malformed('has something else where a list belongs');
    return value.map((text: unknown) => {
      if (typeof text !== 'string') throw malformed('has something else where a text belongs');
      return text;
    });
  }
}

async function makeManifest(
  services: ImageServices,
  ctx: LeasedContext,
  image: DockerImage,
  contents: Contents,
): Promise<Descriptor> {
  const config: Descriptor = { mediaType: MediaType.dockerConfig, ...find(contents, image.config, 'config') };
  const layers: Descriptor[] = [];
  for (const path of image.layers) {
    const layer = find(contents, path, 'layer');
    layers.push({ mediaType: await layerType(services, ctx, layer), ...layer });
  }
  const { diffIds, platform } = parseConfig(await readDocument(services.content, ctx, config), image.config);
  if (diffIds.length !== layers.length) {
    throw invalidArgument(
      `config "${image.config}" names ${diffIds.length} layers, manifest.json ${layers.length}`,
      {
        object: image.config,
      },
    );
  }
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
  await takeBlob(services, ctx, {
    ref: ingestRef(descriptor.digest),
    descriptor,
    source: bytes,
    name: `the manifest of "${image.config}"`,
  });
  return platform.os === '' ? descriptor : { ...descriptor, platform };
}

/** The blob under a path of the archive, links followed; nothing on the disk is looked at. */
function find({ blobs, links }: Contents, path: string, what: string): Taken {
  let at = splitEntryName(toBytePath(path), what).join('/');
  for (let hops = 0; hops < MAX_LINK_HOPS; hops++) {
    const blob = blobs.get(at);
    if (blob !== undefined) return { digest: blob.digest, size: blob.size };
    const next = links.get(at);
    if (next === undefined) break;
    at = next;
  }
  throw invalidArgument(
    `the archive does not have the ${what} "${showPath(at)}" that its manifest.json names`,
    {
      object: path,
      remedy: 'the archive is incomplete: write it again with docker save',
    },
  );
}

async function layerType(services: ImageServices, ctx: LeasedContext, layer: Taken): Promise<string> {
  const reader = await services.content.readerAt(ctx, layer.digest);
  try {
    const head = Buffer.alloc(MAGIC_BYTES);
    const count = await reader.read(head, 0);
    const types = {
      none: MediaType.dockerLayer,
      gzip: MediaType.dockerLayerGzip,
      zstd: MediaType.dockerLayerZstd,
    };
    return types[detectCompression(head.subarray(0, count))];
  } finally {
    await reader.close();
  }
}
