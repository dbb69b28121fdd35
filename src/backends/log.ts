/** Where backends say what they did not fail for: leftovers they could not remove, attributes they lost. */

import { shown } from '../held-paths.js';

export type BackendLog = (
  level: 'warn' | 'error' | 'info',
  message: string,
  details?: Readonly<Record<string, unknown>>,
) => void;

/** The log as it is given, with directories called by their names. */
export const namingLog =
  (log: BackendLog): BackendLog =>
  (level, message, details) =>
    log(level, shown(message), details);

/** Warnings and errors on stderr; used when the opener of a backend gives no log. */
export const stderrLog: BackendLog = (level, message, details) => {
  if (level === 'info') return;
  process.stderr.write(`ebbtide: ${level}: ${message}${details ? ` ${JSON.stringify(details)}` : ''}\n`);
};
