/**
 * From an image's target to the one manifest that is meant: itself, or the best fit of an index, nested ones
 * included. Called by unpack.
 */
import type { CallContext } from '../context.js';
import { type EbbtideError, invalidArgument, isNotFound, notFound, throwIfAborted } from '../errors.js';
import type { Provider } from '../stores/content-helpers.js';
import {
  type Descriptor,
  type Manifest,
  type Platform,
  parseConfig,
  parseIndex,
  parseManifest,
  readDocument,
} from './documents.js';
import { isIndexType, isManifestType } from './media-types.js';
import { hostPlatform, isAttestation, platformRank, platformText } from './platforms.js';

/** Indexes within indexes that are looked into. */
export const MAX_INDEX_DEPTH = 8;

export interface Resolved {
  descriptor: Descriptor;
  manifest: Manifest;
}

interface Candidate {
  descriptor: Descriptor;
  rank: number;
}

/** NotFound: nothing for the platform, or what there is lacks its manifest. */
export async function resolveManifest(
  content: Provider,
  ctx: CallContext,
  target: Descriptor,
  platform: Platform = hostPlatform(),
): Promise<Resolved> {
  if (isManifestType(target.mediaType)) return read(content, ctx, target);
  const search: Search = { content, ctx, wanted: platform, candidates: [], seen: new Set() };
  await gather(search, target, 0);
  const { candidates } = search;
  // A stable sort: of equals the index's first counts.
  candidates.sort((a, b) => b.rank - a.rank);
  let missing: unknown;
  for (const { descriptor } of candidates) {
    try {
      return await read(content, ctx, descriptor);
    } catch (error) {
      if (!isNotFound(error)) throw error;
      missing ??= error;
    }
  }
  throw notFound(`image ${target.digest} has no manifest for ${platformText(platform)} here`, {
    object: target.digest,
    cause: missing,
    remedy: 'name another platform, or import an image that has this one',
  });
}

async function read(content: Provider, ctx: CallContext, descriptor: Descriptor): Promise<Resolved> {
  const json = await readDocument(content, ctx, descriptor);
  return { descriptor, manifest: parseManifest(json, descriptor.digest) };
}

interface Search {
  content: Provider;
  ctx: CallContext;
  wanted: Platform;
  candidates: Candidate[];
  /** Digests that were looked at: an index may name the same one often. */
  seen: Set<string>;
}

async function gather(search: Search, target: Descriptor, depth: number): Promise<void> {
  const { content, ctx } = search;
  throwIfAborted(ctx.signal);
  if (!isIndexType(target.mediaType)) {
    throw invalidArgument(`${target.digest} of type "${target.mediaType}" is no image`, {
      object: target.digest,
    });
  }
  if (depth >= MAX_INDEX_DEPTH) throw tooDeep(target.digest);
  const index = parseIndex(await readDocument(content, ctx, target), target.digest);
  for (const child of index.manifests) {
    if (isAttestation(child) || search.seen.has(child.digest)) continue;
    search.seen.add(child.digest);
    if (isIndexType(child.mediaType)) {
      await gather(search, child, depth + 1).catch((error: unknown) => {
        if (!isNotFound(error)) throw error;
      });
    } else if (isManifestType(child.mediaType)) {
      const rank = await rankOf(content, ctx, child, search.wanted);
      if (rank > 0) search.candidates.push({ descriptor: child, rank });
    }
  }
}

export const tooDeep = (digest: string): EbbtideError =>
  invalidArgument(`index ${digest} is nested deeper than ${MAX_INDEX_DEPTH} levels`, {
    object: digest,
    remedy: 'the image is damaged or hostile: do not use it',
  });

/** By the index entry, else by the manifest's config; an entry that tells nothing and lacks both fits nothing. */
async function rankOf(
  content: Provider,
  ctx: CallContext,
  child: Descriptor,
  wanted: Platform,
): Promise<number> {
  if (child.platform !== undefined) return platformRank(child.platform, wanted);
  try {
    const { manifest } = await read(content, ctx, child);
    const config = parseConfig(await readDocument(content, ctx, manifest.config), manifest.config.digest);
    return platformRank(config.platform, wanted);
  } catch (error) {
    if (isNotFound(error)) return 0;
    throw error;
  }
}
