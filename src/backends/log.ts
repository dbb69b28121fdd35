/**
 * The log of backends for problems that are not errors: leftovers that could not be removed, lost attributes.
 */

import { shown } from '../held-paths.js';

export type BackendLog = (
  level: 'warn' | 'error' | 'info',
  message: string,
  details?: Readonly<Record<string, unknown>>,
) => void;

/** Wraps a log so that directories appear by their names. */
export const namingLog =
  (log: BackendLog): BackendLog =>
  (level, message, details) =>
    log(level, shown(message), details);

/** Warnings and errors on stderr; the default of a backend. */
export const stderrLog: BackendLog = (level, message, details) => {
  if (level === 'info') return;
  process.stderr.write(`ebbtide: ${level}: ${message}${details ? ` ${JSON.stringify(details)}` : ''}\n`);
};
