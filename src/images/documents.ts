/**
 * Indexes, manifests and image configs: untrusted JSON, checked before any field of it is used. A document
 * that does not match its media type is InvalidArgument (one blob must not be read as an index here and as a
 * manifest there). `null` is what Go writes for an empty list, map or string, and means that here too. Pure,
 * except for `readDocument`.
 */
import type { CallContext } from '../context.js';
import { EbbtideError, invalidArgument } from '../errors.js';
import { isDigest } from '../model/digest.js';
import type { StringMap } from '../model/records.js';
import { type Provider, readBlob } from '../stores/content/content-helpers.js';
import { isIndexType, isManifestType } from './media-types.js';

/** Limit on the bytes of a JSON document. */
export const MAX_DOCUMENT_BYTES = 8 * 2 ** 20;
/** Limit on the layers of a manifest. An overlay mount takes 500. */
export const MAX_LAYERS = 1000;
/** Limit on the manifests of an index. */
export const MAX_MANIFESTS = 5000;
/** Limit on the images of one source, by name. */
export const MAX_IMAGES = 10_000;
/** Limit on the documents read to find the manifest of one image. */
export const MAX_DOCUMENTS = 10_000;

/** Limit on the descriptors that one import or fetch reads. */
export const MAX_DESCRIPTORS = 100_000;

/** What a manifest is for, in Go's words. */
export interface Platform {
  /** `linux`, … */
  os: string;
  /** `amd64`, `arm64`, … */
  architecture: string;
  /** `v7`, `v8`, …; left out where there is none. */
  variant?: string | undefined;
}

export interface Descriptor {
  mediaType: string;
  digest: string;
  /** Bytes. */
  size: number;
  annotations?: StringMap | undefined;
  platform?: Platform | undefined;
}

export interface Index {
  manifests: Descriptor[];
  /**
   * Entries that are not valid descriptors or have an unknown digest algorithm, by their position in the
   * document's list.
   */
  unusable: ReadonlyMap<number, UnusableEntry>;
}

/** Fields as in the document; '' if not a string. */
export interface UnusableEntry {
  digest: string;
  mediaType: string;
  error: EbbtideError;
}

export interface Manifest {
  config: Descriptor;
  layers: Descriptor[];
}

/** The part of an image config that unpacking needs. */
export interface ImageConfig {
  platform: Platform;
  /** Digests of the uncompressed layers, lowest first. */
  diffIds: string[];
}

export type Json = Readonly<Record<string, unknown>>;

const wrong = (name: string, what: string, cause?: unknown): EbbtideError =>
  invalidArgument(`${name} ${what}`, {
    object: name,
    cause,
    remedy: 'the image is damaged or hostile: do not use it',
  });

/** Reads a JSON blob, of the descriptor's size. */
export async function readDocument(provider: Provider, ctx: CallContext, desc: Descriptor): Promise<Json> {
  if (desc.size > MAX_DOCUMENT_BYTES) {
    throw wrong(
      desc.digest,
      `of type ${desc.mediaType} is ${desc.size} bytes, more than ${MAX_DOCUMENT_BYTES}`,
    );
  }
  return parseObject(await readBlob(provider, ctx, { digest: desc.digest }), desc.digest);
}

export function parseJson(bytes: Uint8Array, name: string): unknown {
  if (bytes.length > MAX_DOCUMENT_BYTES) throw wrong(name, `is larger than ${MAX_DOCUMENT_BYTES} bytes`);
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch (error) {
    throw wrong(name, 'is not JSON', error);
  }
}

export function parseObject(bytes: Uint8Array, name: string): Json {
  const value = parseJson(bytes, name) ?? {};
  if (!isObject(value)) throw wrong(name, 'is not a JSON object');
  return value;
}

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function parseList<T>(
  value: unknown,
  name: string,
  max: number,
  parse: (item: unknown, name: string) => T,
): T[] {
  if (value == null) return [];
  if (!Array.isArray(value)) throw wrong(name, 'is not a list');
  checkCount(value.length, name, max);
  return value.map((item: unknown, i) => parse(item, `${name}[${i}]`));
}

function parseText(value: unknown, name: string): string {
  if (value == null) return '';
  if (typeof value !== 'string') throw wrong(name, 'is not text');
  return value;
}

/** InvalidArgument for a list with more than `max` entries. */
export function checkCount(count: number, name: string, max: number): void {
  if (count > max) throw wrong(name, `has ${count} entries, more than ${max}`);
}

/** @param max entries; one that is not valid does not affect the others */
export function parseIndex(json: Json, name: string, max = MAX_MANIFESTS): Index {
  checkShape(json, name, isIndexType, ['layers', 'config', 'fsLayers']);
  const entries = parseList(json.manifests, `${name} manifests`, max, parseEntry);
  const unusable = new Map<number, UnusableEntry>();
  const manifests = entries.flatMap((entry, at) => {
    if (!('error' in entry)) return [entry];
    unusable.set(at, entry);
    return [];
  });
  return { manifests, unusable };
}

function parseEntry(value: unknown, name: string): Descriptor | UnusableEntry {
  try {
    return parseDescriptor(value, name);
  } catch (error) {
    if (!(error instanceof EbbtideError && error.kind === 'InvalidArgument')) throw error;
    const text = (field: string): string => {
      const found = isObject(value) ? value[field] : undefined;
      return typeof found === 'string' ? found : '';
    };
    return { digest: text('digest'), mediaType: text('mediaType'), error };
  }
}

export function parseManifest(json: Json, name: string): Manifest {
  checkShape(json, name, isManifestType, ['manifests', 'fsLayers']);
  return {
    config: parseDescriptor(json.config, `${name} config`),
    layers: parseList(json.layers, `${name} layers`, MAX_LAYERS, parseDescriptor),
  };
}

function checkShape(
  json: Json,
  name: string,
  fits: (type: string) => boolean,
  foreign: readonly string[],
): void {
  const mediaType = json.mediaType ?? '';
  if (mediaType !== '' && !(typeof mediaType === 'string' && fits(mediaType))) {
    throw wrong(name, `says it is of type ${JSON.stringify(mediaType)}, its descriptor says otherwise`);
  }
  for (const field of foreign) {
    if (json[field] != null) throw wrong(name, `has "${field}", which does not belong in it`);
  }
}

function parseDescriptor(value: unknown, name: string): Descriptor {
  if (!isObject(value)) throw wrong(name, 'is not a descriptor');
  const { mediaType, digest, size } = value;
  if (typeof mediaType !== 'string' || mediaType === '') throw wrong(name, 'has no media type');
  if (typeof digest !== 'string' || !isDigest(digest))
    throw wrong(name, 'has no valid digest of sha256, sha384 or sha512');
  if (typeof size !== 'number' || !Number.isSafeInteger(size) || size < 0)
    throw wrong(name, 'has no valid size');
  const annotations =
    value.annotations == null ? undefined : parseStrings(value.annotations, `${name} annotations`);
  const platform = value.platform == null ? undefined : parsePlatform(value.platform, `${name} platform`);
  return { mediaType, digest, size, ...(annotations && { annotations }), ...(platform && { platform }) };
}

function parseStrings(value: unknown, name: string): StringMap {
  if (!isObject(value)) throw wrong(name, 'are not a map');
  const entries: [string, string][] = [];
  for (const [key, text] of Object.entries(value)) {
    if (text !== null && typeof text !== 'string')
      throw wrong(name, `have a value that is not a string under "${key}"`);
    entries.push([key, text ?? '']);
  }
  return Object.fromEntries(entries);
}

function parsePlatform(value: unknown, name: string): Platform {
  if (!isObject(value)) throw wrong(name, 'is not an object');
  const text = (field: string): string => parseText(value[field], `${name} ${field}`);
  const [os, architecture, variant] = [text('os'), text('architecture'), text('variant')];
  return { os, architecture, ...(variant !== '' && { variant }) };
}

export function parseConfig(json: Json, name: string): ImageConfig {
  const rootfs = json.rootfs ?? {};
  if (!isObject(rootfs)) throw wrong(name, 'is an image config without rootfs');
  const diffIds = parseList(rootfs.diff_ids, `${name} diff_ids`, MAX_LAYERS, (diffId) => {
    if (typeof diffId !== 'string' || !isDigest(diffId)) throw wrong(name, 'has an invalid diff id');
    return diffId;
  });
  return { platform: parsePlatform(json, name), diffIds };
}
