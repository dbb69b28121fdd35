/**
 * The daemon's configuration: a JSON file, overridden by the command line. InvalidArgument names an unknown
 * key.
 */

import { resolve } from 'node:path';
import { type SnapshotterName, snapshotterNames } from '../db-options.js';
import type { EtcdConfig } from '../engine/etcd/client/options.js';
import { invalidArgument } from '../errors.js';
import { checkGrace } from '../gc/schedule/expiry-clock.js';
import { type SchedulerOptions, schedulerParams } from '../gc/schedule/scheduler-params.js';
import { readJson } from '../system/json-file.js';
import { type CollectMode, collectModes } from './collections.js';
import { type Limits, limitsOf } from './limits.js';
import { type LogLevel, logLevels } from './log.js';
import { defaultAddress, socketPath } from './run-file.js';
import type { ActivatedSockets } from './systemd/activation.js';

export interface DaemonOptions {
  root: string;
  /** Path of the unix socket. */
  address: string;
  /** Socket for a containerd whose proxy plugins use this store; undefined: none. */
  proxyAddress: string | undefined;
  /** `host:port` of the metrics; undefined: none. */
  metrics: string | undefined;
  gc: CollectMode;
  policy: 'shared' | 'isolated';
  /** Undefined: those that work on the root's file system. */
  snapshotters: readonly SnapshotterName[] | undefined;
  logLevel: LogLevel;
  scheduler: SchedulerOptions;
  limits: Limits;
  /** Whether the services Transfer and Streaming are there; default not. */
  transfer: boolean;
  /** Whether the service Mounts is there; default not. */
  mounts: boolean;
  /** What to retire, by schedule; undefined: nothing. */
  policyFile?: string | undefined;
  /** As `openDB`'s; undefined: the default. */
  expiryGraceMs?: number | undefined;
  /** Sockets that systemd opened, in the place of `address` and `proxyAddress`. */
  sockets?: ActivatedSockets;
  /** The tree is in etcd, and this host may collect it. */
  etcd?: EtcdConfig | undefined;
}

const fields = [
  'address',
  'proxyAddress',
  'metrics',
  'gc',
  'policy',
  'policyFile',
  'snapshotters',
  'logLevel',
  'scheduler',
  'limits',
  'expiryGraceMs',
  'transfer',
  'mounts',
] as const;
type Field = (typeof fields)[number];
export type GivenOptions = { [name in Field]?: unknown };

/** The settings of the file; {} without one. */
export async function readConfig(file: string | undefined): Promise<GivenOptions> {
  if (file === undefined) return {};
  const document = await readJson('config', file);
  if (typeof document !== 'object' || document === null || Array.isArray(document)) {
    throw invalidArgument(`the config ${file} is not a JSON object`, { object: file });
  }
  for (const name of Object.keys(document)) {
    if ((fields as readonly string[]).includes(name)) continue;
    throw invalidArgument(`the config ${file} has an unknown field "${name}"`, {
      object: file,
      remedy: `known: ${fields.join(', ')}`,
    });
  }
  return document;
}

/** Defaults, then the file, then the command line. */
export function daemonOptions(root: string, file: GivenOptions, line: GivenOptions): DaemonOptions {
  const given: GivenOptions = { ...file };
  for (const name of fields) if (line[name] !== undefined) given[name] = line[name];
  const scheduler = object<SchedulerOptions>('scheduler', given.scheduler);
  // Refused here rather than at the first scheduled collection.
  schedulerParams(scheduler);
  return {
    root,
    address: socket('address', given.address) ?? defaultAddress(root),
    proxyAddress: socket('proxyAddress', given.proxyAddress),
    metrics: text('metrics', given.metrics),
    gc: choice('gc', given.gc, collectModes),
    policy: choice('policy', given.policy, ['shared', 'isolated'] as const),
    snapshotters: snapshotterList(given.snapshotters),
    logLevel: given.logLevel === undefined ? 'info' : choice('logLevel', given.logLevel, logLevels),
    scheduler,
    limits: limitsOf(object('limits', given.limits)),
    policyFile: path('policyFile', given.policyFile),
    transfer: flag('transfer', given.transfer),
    mounts: flag('mounts', given.mounts),
    ...graceOf(given.expiryGraceMs),
  };
}

/** Relative paths are made absolute here. */
function path(name: string, value: unknown): string | undefined {
  const given = text(name, value);
  return given === undefined ? undefined : resolve(given);
}

function socket(name: string, value: unknown): string | undefined {
  const given = text(name, value);
  return given === undefined ? undefined : socketPath(given);
}

function graceOf(value: unknown): { expiryGraceMs?: number } {
  if (value === undefined) return {};
  // Anything but a number is refused like a number out of range.
  checkGrace(typeof value === 'number' ? value : Number.NaN);
  return { expiryGraceMs: value as number };
}

function text(name: string, value: unknown): string | undefined {
  if (value === undefined) return undefined;
  if (typeof value === 'string' && value !== '') return value;
  throw invalidArgument(`option ${name} is not a string`, { object: name });
}

/** Off by default. */
function flag(name: string, value: unknown): boolean {
  if (value === undefined || typeof value === 'boolean') return value ?? false;
  throw invalidArgument(`option ${name} is not true or false`, { object: name });
}

/** The first choice is the default. */
function choice<T extends string>(name: string, value: unknown, allowed: readonly [T, ...T[]]): T {
  if (value === undefined) return allowed[0];
  const found = allowed.find((one) => one === value);
  if (found !== undefined) return found;
  throw invalidArgument(`option ${name} is "${String(value)}"`, {
    object: name,
    remedy: `use one of ${allowed.join(', ')}`,
  });
}

function object<T extends object>(name: string, value: unknown): T {
  if (value === undefined) return {} as T;
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as T;
  throw invalidArgument(`option ${name} is not an object`, { object: name });
}

function snapshotterList(value: unknown): readonly SnapshotterName[] | undefined {
  if (value === undefined) return undefined;
  const names = typeof value === 'string' ? value.split(',').filter((name) => name !== '') : value;
  if (!Array.isArray(names)) {
    throw invalidArgument('option snapshotters is not a list', { object: 'snapshotters' });
  }
  return names.map((name) => choice('snapshotters', name, snapshotterNames));
}
