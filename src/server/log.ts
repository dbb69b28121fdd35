/** The daemon's log: one JSON object a line on standard error, as journald and log collectors take it. */
import { type Logger, pino } from 'pino';
import type { Log } from '../db-host.js';

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error', 'fatal'] as const;
export type LogLevel = (typeof logLevels)[number];
export type { Logger };

export function createLog(level: LogLevel): Logger {
  const options = { level, base: { pid: process.pid }, timestamp: pino.stdTimeFunctions.isoTime };
  // Written before the call returns: the last lines of a process that dies are the ones that are needed.
  const destination = pino.destination({ fd: 2, sync: true });
  // A terminal that has gone, or a log on a full disk: lines are lost, the daemon is not.
  destination.on('error', () => undefined);
  return pino(options, destination);
}

/** As the DB wants it. */
export const storeLog =
  (log: Logger): Log =>
  (level, message, details) =>
    log[level]({ ...details, from: 'store' }, message);

/** What a library says on the console (the lmdb package does, of commits that fail) goes into the log. Answers the way back. */
export function takeConsole(log: Logger): () => void {
  const before = { error: console.error, warn: console.warn };
  const take = (...what: unknown[]): void => log.warn({ from: 'library' }, what.map(String).join(' '));
  Object.assign(console, { error: take, warn: take });
  return () => void Object.assign(console, before);
}
