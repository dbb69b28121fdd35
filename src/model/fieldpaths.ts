/**
 * Field masks: how the paths of an update change a map. Called by every store with an update; pure. Work grows with the
 * paths and the entries, not with one times the other.
 */
import { type EbbtideError, invalidArgument } from '../errors.js';
import { labelOf } from './labels.js';
import type { StringMap } from './records.js';

/** Paths of one update. */
export const MAX_PATHS = 16_384;

/** The paths of an update, each once: every one takes from the same values. InvalidArgument: more than MAX_PATHS. */
export function maskPaths(paths: readonly string[]): Iterable<string> {
  if (paths.length > MAX_PATHS) {
    throw invalidArgument(`an update of ${paths.length} fields is over the limit of ${MAX_PATHS}`, {
      remedy: 'name a map as a whole, or update in parts',
    });
  }
  return new Set(paths);
}

/** A map of texts or messages on its way through an update. */
export class MaskedMap<T> {
  readonly #field: string;
  readonly #given: Readonly<Record<string, T>> | undefined;
  #current: Readonly<Record<string, T>> | undefined;
  /** The entries, once a path has changed one of them. */
  #entries: Map<string, T | undefined> | undefined;

  constructor(
    field: string,
    current: Readonly<Record<string, T>> | undefined,
    given: Readonly<Record<string, T>> | undefined,
  ) {
    this.#field = field;
    this.#current = current;
    this.#given = given;
  }

  /**
   * Changes the map by one path: all of it becomes the given one for the field itself, one entry for `field.<key>` (the
   * key is the rest of the path, verbatim; absent or empty in the given map deletes it). False: the path is about
   * something else.
   */
  apply(path: string): boolean {
    const { length } = this.#field;
    if (!path.startsWith(this.#field)) return false;
    if (path.length === length) {
      this.#current = this.#given;
      this.#entries = undefined;
      return true;
    }
    if (path[length] !== '.') return false;
    const key = path.slice(length + 1);
    this.#entries ??= new Map(Object.entries(this.#current ?? {}));
    // A changed entry goes to the end.
    this.#entries.delete(key);
    this.#entries.set(key, labelOf(this.#given, key));
    return true;
  }

  /** Without empty texts; undefined stands for an empty map. Fresh, but for the values. */
  get map(): Readonly<Record<string, T>> | undefined {
    const kept = [...(this.#entries ?? Object.entries(this.#current ?? {}))].filter(
      (entry): entry is [string, T] => entry[1] !== undefined && entry[1] !== '',
    );
    return kept.length === 0 ? undefined : Object.fromEntries(kept);
  }
}

/**
 * The labels of an object of which an update changes nothing else; without paths they are the given ones. InvalidArgument:
 * a path of another field.
 */
export function maskedLabels(
  what: string,
  object: string,
  stored: StringMap | undefined,
  given: StringMap | undefined,
  paths: readonly string[],
): StringMap | undefined {
  if (paths.length === 0) return given;
  const labels = new MaskedMap('labels', stored, given);
  for (const path of maskPaths(paths)) if (!labels.apply(path)) throw unknownPath(what, path, object);
  return labels.map;
}

/** The error for a path that names no field of `what` (an object kind) that can be updated. */
export const unknownPath = (what: string, path: string, object: string): EbbtideError =>
  invalidArgument(`cannot update ${what} field "${path}"`, {
    object,
    remedy: 'name only fields that this kind of object lets change, or no field at all for all of them',
  });
