/**
 * Translates errors of backends to the caller's names. A backend knows snapshots and ingests by names that
 * the store creates, `<namespace>/<number>/<name>`; the caller sees the last part only. Called by the stores
 * around backend calls.
 */
import { EbbtideError } from '../errors.js';

/** The error of a backend, with the names that callers in the namespace use. */
export function inCallersNames(ns: string, error: unknown): unknown {
  if (!(error instanceof EbbtideError)) return error;
  const inner = new RegExp(`(?<![^\\s"'(])${ns.replace(/[.]/g, '\\.')}/\\d+/`, 'g');
  const { message, object, remedy } = error;
  const said = message.replace(inner, '');
  const named = object?.replace(inner, '');
  if (said === message && named === object) return error;
  return new EbbtideError(error.kind, said, {
    object: named,
    remedy: remedy?.replace(inner, ''),
    cause: error,
  });
}

/** Wraps a backend so that its errors have the callers' names. */
export function namedIn<B extends object>(ns: string, backend: B): B {
  return new Proxy(backend, {
    get: (target, property) => {
      const value: unknown = Reflect.get(target, property, target);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]): unknown => {
        const result: unknown = value.apply(target, args);
        if (!(result instanceof Promise)) return result;
        return result.catch((error: unknown) => {
          throw inCallersNames(ns, error);
        });
      };
    },
  });
}
