/**
 * Field masks: how the paths of an update change a map. Called by every store that has an update; pure. Cost
 * grows with the paths plus the entries, not with their product.
 */
import { type EbbtideError, invalidArgument } from '../errors.js';
import { labelOf } from './labels.js';
import type { StringMap } from './records.js';

/** Limit on the paths of one update. */
export const MAX_PATHS = 16_384;

/**
 * The paths of an update without duplicates, which would have no effect. InvalidArgument: more than
 * MAX_PATHS.
 */
export function maskPaths(paths: readonly string[]): Iterable<string> {
  if (paths.length > MAX_PATHS) {
    throw invalidArgument(`an update of ${paths.length} fields is over the limit of ${MAX_PATHS}`, {
      remedy: 'name a map as a whole, or update in parts',
    });
  }
  return new Set(paths);
}

/** A map of strings or messages while an update is applied to it. */
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
   * Applies one path: the field itself replaces the whole map; `field.<key>` sets one entry (the key is the
   * rest of the path, verbatim) or deletes it if the given map has no value or an empty one. Returns false if
   * the path belongs to another field.
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

  /** Without empty strings; undefined stands for an empty map. A fresh map that shares its values. */
  get map(): Readonly<Record<string, T>> | undefined {
    const kept = [...(this.#entries ?? Object.entries(this.#current ?? {}))].filter(
      (entry): entry is [string, T] => entry[1] !== undefined && entry[1] !== '',
    );
    return kept.length === 0 ? undefined : Object.fromEntries(kept);
  }
}

/**
 * The labels after an update that can change nothing else. Without paths the given labels replace all.
 * InvalidArgument: a path of another field.
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

/** The error for a path that is not an updatable field of `what` (an object kind). */
export const unknownPath = (what: string, path: string, object: string): EbbtideError =>
  invalidArgument(`cannot update ${what} field "${path}"`, {
    object,
    remedy: 'name only fields that can be updated, or none to update all',
  });
