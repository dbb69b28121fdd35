/** Where backends say what they did not fail for: leftovers they could not remove, attributes they lost. */

export type BackendLog = (
  level: 'warn' | 'error' | 'info',
  message: string,
  details?: Readonly<Record<string, unknown>>,
) => void;

/** Warnings and errors on stderr; used when the opener of a backend gives no log. */
export const stderrLog: BackendLog = (level, message, details) => {
  if (level === 'info') return;
  process.stderr.write(`ebbtide: ${level}: ${message}${details ? ` ${JSON.stringify(details)}` : ''}\n`);
};
