/**
 * Resolves an image's target to one manifest: itself, or the best match of an index, including nested ones.
 * Called by unpack.
 */
import type { CallContext } from '../context.js';
import { EbbtideError, invalidArgument, isKind, isNotFound, notFound, throwIfAborted } from '../errors.js';
import type { ContentStore } from '../stores/content/content.js';
import {
  checkCount,
  type Descriptor,
  MAX_DOCUMENTS,
  type Manifest,
  type Platform,
  parseConfig,
  parseIndex,
  parseManifest,
  readDocument,
} from './documents.js';
import { isImageManifest, isIndexType, isManifestType, isNonDistributable } from './media-types.js';
import { hostPlatform, isAttestation, platformRank, platformText } from './platforms.js';

/** Limit on the nesting of indexes. */
export const MAX_INDEX_DEPTH = 8;

export interface Resolved {
  descriptor: Descriptor;
  manifest: Manifest;
}

/** What is needed of the store: bytes of documents, and whether blobs exist. */
export type Blobs = Pick<ContentStore, 'info' | 'readerAt'>;

interface Candidate {
  descriptor: Descriptor;
  rank: number;
}

/**
 * The best manifest whose image is here: `isHere` decides, by default config and layers have to be in the
 * store; if there is none, the best of all. NotFound: nothing for the platform, or its manifest is missing.
 * InvalidArgument: the target is not an image, or is the only manifest for the platform and damaged.
 */
export async function resolveManifest(
  content: Blobs,
  ctx: CallContext,
  target: Descriptor,
  platform: Platform = hostPlatform(),
  isHere = (manifest: Manifest): Promise<boolean> => hasBlobs(content, ctx, manifest),
): Promise<Resolved> {
  if (isManifestType(target.mediaType)) return read(content, ctx, target);
  const search: Search = {
    target: target.digest,
    content,
    ctx,
    wanted: platform,
    candidates: [],
    seen: new Set(),
    failures: [],
  };
  await gather(search, target, 0);
  const { candidates, failures } = search;
  // A stable sort: among equals the index's order decides.
  candidates.sort((a, b) => b.rank - a.rank);
  let best: Resolved | undefined;
  for (const { descriptor } of candidates) {
    const found = await attempt(search, () => read(content, ctx, descriptor));
    if (found === undefined || !isImageManifest(found.manifest)) continue;
    if (await isHere(found.manifest)) return found;
    best ??= found;
  }
  if (best !== undefined) return best;
  // Damage matters only when nothing else matches.
  const damage = failures.find((failure) => isKind(failure, 'InvalidArgument'));
  if (damage !== undefined) throw damage;
  throw notFound(`image ${target.digest} has no manifest for ${platformText(platform)} here`, {
    object: target.digest,
    cause: failures[0],
    remedy: 'name another platform, or import an image that has this one',
  });
}

/** Whether the store has the config and the layers, except those that may not be distributed. */
export async function hasBlobs(
  content: Blobs,
  ctx: CallContext,
  { config, layers }: Manifest,
): Promise<boolean> {
  for (const { digest, mediaType } of [config, ...layers]) {
    throwIfAborted(ctx.signal);
    try {
      if (!isNonDistributable(mediaType)) await content.info(ctx, digest);
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }
  return true;
}

async function read(content: Blobs, ctx: CallContext, descriptor: Descriptor): Promise<Resolved> {
  const json = await readDocument(content, ctx, descriptor);
  return { descriptor, manifest: parseManifest(json, descriptor.digest) };
}

interface Search {
  /** Digest of the image's target. */
  target: string;
  content: Blobs;
  ctx: CallContext;
  wanted: Platform;
  candidates: Candidate[];
  /** Digests already visited: an index may list the same one many times. */
  seen: Set<string>;
  /** Why documents were skipped: the first error of each kind. */
  failures: EbbtideError[];
}

/** Undefined when a document is missing or not valid. */
async function attempt<T>(search: Search, step: () => Promise<T>): Promise<T | undefined> {
  try {
    return await step();
  } catch (error) {
    if (!(error instanceof EbbtideError) || !(isNotFound(error) || error.kind === 'InvalidArgument'))
      throw error;
    remember(search, error);
    return undefined;
  }
}

function remember({ failures }: Search, error: EbbtideError): void {
  if (!failures.some(({ kind }) => kind === error.kind)) failures.push(error);
}

async function gather(search: Search, target: Descriptor, depth: number): Promise<void> {
  const { content, ctx } = search;
  throwIfAborted(ctx.signal);
  if (!isIndexType(target.mediaType)) {
    throw invalidArgument(`${target.digest} of type "${target.mediaType}" is not an image`, {
      object: target.digest,
    });
  }
  if (depth >= MAX_INDEX_DEPTH) throw tooDeep(target.digest);
  const index = parseIndex(await readDocument(content, ctx, target), target.digest);
  const [unusable] = index.unusable.values();
  if (unusable !== undefined) remember(search, unusable.error);
  for (const child of index.manifests) {
    if (isAttestation(child) || search.seen.has(child.digest)) continue;
    search.seen.add(child.digest);
    checkCount(search.seen.size, `the index ${search.target} with those within it`, MAX_DOCUMENTS);
    if (isIndexType(child.mediaType)) {
      await attempt(search, () => gather(search, child, depth + 1));
    } else if (isManifestType(child.mediaType)) {
      const rank = (await attempt(search, () => rankOf(content, ctx, child, search.wanted))) ?? 0;
      if (rank > 0) search.candidates.push({ descriptor: child, rank });
    }
  }
}

export const tooDeep = (digest: string): EbbtideError =>
  invalidArgument(`index ${digest} is nested deeper than ${MAX_INDEX_DEPTH} levels`, {
    object: digest,
    remedy: 'the image is damaged or hostile: do not use it',
  });

/** By the index entry, else by the manifest's config. */
async function rankOf(
  content: Blobs,
  ctx: CallContext,
  child: Descriptor,
  wanted: Platform,
): Promise<number> {
  if (child.platform !== undefined && child.platform.architecture !== '')
    return platformRank(child.platform, wanted);
  const { manifest } = await read(content, ctx, child);
  if (!isImageManifest(manifest)) return 0;
  const config = parseConfig(await readDocument(content, ctx, manifest.config), manifest.config.digest);
  return platformRank(config.platform, wanted);
}
