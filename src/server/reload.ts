/**
 * What SIGHUP changes in a running daemon: the log level, when it collects, its policy, and the limits that are looked up for each
 * connection or call. Other fields need a restart. Called by daemon.ts.
 */
import type { DaemonOptions } from './config.js';
import type { Limits } from './limits.js';

/** Looked up for each connection, or each call. */
const limits: readonly (keyof Limits)[] = [
  'streamsPerConnection',
  'metadataBytes',
  'ingestBytes',
  'helloMs',
  'keepaliveMs',
  'shutdownMs',
];
const fields = ['logLevel', 'gc', 'scheduler', 'policyFile'] as const;

type Mutable<T> = { -readonly [name in keyof T]: T[name] };

export interface Reload {
  /** Fields that changed, as the config names them. */
  readonly changed: readonly string[];
  /** Fields that differ, and keep their values until the daemon is started again. */
  readonly needRestart: readonly string[];
}

/** Brings `now` as far towards `next` as possible without a restart. */
export function reload(now: DaemonOptions, next: DaemonOptions): Reload {
  const changed: string[] = [];
  const needRestart: string[] = [];
  const differs = (a: unknown, b: unknown): boolean => JSON.stringify(a) !== JSON.stringify(b);
  for (const name of Object.keys({ ...now, ...next }) as (keyof DaemonOptions)[]) {
    if (name === 'limits' || !differs(now[name], next[name])) continue;
    ((fields as readonly string[]).includes(name) ? changed : needRestart).push(name);
  }
  for (const name of Object.keys(next.limits) as (keyof Limits)[]) {
    if (now.limits[name] === next.limits[name]) continue;
    (limits.includes(name) ? changed : needRestart).push(`limits.${name}`);
  }
  now.logLevel = next.logLevel;
  now.gc = next.gc;
  now.scheduler = next.scheduler;
  now.policyFile = next.policyFile;
  // Everybody has this object.
  for (const name of limits) (now.limits as Mutable<Limits>)[name] = next.limits[name];
  return { changed, needRestart };
}
