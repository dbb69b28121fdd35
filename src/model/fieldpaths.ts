/**
 * Field masks: how the paths of an update change a map. Called by every store with an update; pure.
 */
import { type EbbtideError, invalidArgument } from '../errors.js';
import { labelOf } from './labels.js';

/**
 * The map of `field` after one path of an update: replaced by `given`'s for the path `field` itself; with one
 * entry taken from `given` for `field.<key>` (the key is the rest of the path, verbatim; absent or empty in
 * `given` deletes it). Null when the path is about something else. Empty texts are dropped, undefined stands for
 * an empty map. The answer is a fresh map that shares the values with its sources.
 */
export function applyMapPath<T>(
  field: string,
  path: string,
  current: Readonly<Record<string, T>> | undefined,
  given: Readonly<Record<string, T>> | undefined,
): Readonly<Record<string, T>> | undefined | null {
  if (!path.startsWith(field)) return null;
  if (path.length === field.length) return fromEntries(Object.entries(given ?? {}));
  if (path[field.length] !== '.') return null;
  const key = path.slice(field.length + 1);
  const entries = Object.entries(current ?? {}).filter(([k]) => k !== key);
  const value = labelOf(given, key);
  if (value !== undefined) entries.push([key, value]);
  return fromEntries(entries);
}

function fromEntries<T>(entries: [string, T][]): Readonly<Record<string, T>> | undefined {
  const kept = entries.filter(([, value]) => value !== undefined && value !== '');
  return kept.length === 0 ? undefined : Object.fromEntries(kept);
}

/** The error for a path that names no field of `what` (an object kind) that can be updated. */
export const unknownPath = (what: string, path: string, object: string): EbbtideError =>
  invalidArgument(`cannot update ${what} field "${path}"`, {
    object,
    remedy: 'name only fields that this kind of object lets change, or no field at all for all of them',
  });
