/** The daemon's log: one JSON object per line on standard error, for journald and log collectors. */
import { type Logger, pino } from 'pino';
import type { Log } from '../db-host.js';

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
export type LogLevel = (typeof logLevels)[number];
export type { Logger };

export function createLog(level: LogLevel): Logger {
  const options = {
    level,
    base: { pid: process.pid },
    timestamp: pino.stdTimeFunctions.isoTime,
    // The other one repeats the messages of causes in that of the error, which has said what matters.
    serializers: { err: pino.stdSerializers.errWithCause },
  };
  // Written before the call returns: the last lines of a process that dies matter most.
  const destination = pino.destination({ fd: 2, sync: true });
  // The terminal is gone, or the disk of the log is full: lines are lost, the daemon continues.
  destination.on('error', () => undefined);
  return pino(options, destination);
}

/** The log in the form that the DB expects. */
export const storeLog =
  (log: Logger): Log =>
  (level, message, details) =>
    log[level]({ ...details, from: 'store' }, message);

/**
 * Redirects to the log what a library prints on the console (the lmdb package does so for failed commits).
 * Returns a function that undoes it.
 */
export function takeConsole(log: Logger): () => void {
  const before = { error: console.error, warn: console.warn };
  const take = (...what: unknown[]): void => log.warn({ from: 'library' }, what.map(String).join(' '));
  Object.assign(console, { error: take, warn: take });
  return () => void Object.assign(console, before);
}
