/** The options of a DB and their validation. Called by open.ts before anything is opened. */
import { resolve } from 'node:path';
import type { ContentBackend, SnapshotterBackend } from './backends/contract.js';
import type { Log } from './db-host.js';
import type { LeaseBackendName } from './defaults.js';
import type { Durability } from './engine/contract.js';
import type { EtcdConfig } from './engine/etcd/client/options.js';
import { invalidArgument } from './errors.js';
import { checkGrace } from './gc/schedule/expiry-clock.js';
import type { ContentPolicy, EventsPublisher } from './stores/host.js';

/** The snapshotters that come with the package. */
export const snapshotterNames = ['native', 'overlayfs'] as const;
/** A snapshotter that comes with the package. */
export type SnapshotterName = (typeof snapshotterNames)[number];

/** Options of a DB. */
export interface DBOptions {
  /** Whether a namespace may use content of others by its digest; default `shared`. */
  policy?: ContentPolicy;
  /** When a write is acknowledged: on disk (`flushed`, the default), or visible to others. */
  durability?: Durability;
  /** Gets the events; by default nobody. */
  publisher?: EventsPublisher;
  /** Gets warnings and errors; default standard error. */
  log?: Log;
  /** Whether this host collects a tree shared over etcd; an embedded store is collected either way. */
  enableEtcdGC?: boolean;
  /** Owner of leases: `''`, `bolt` (this host) or `etcd` (all hosts). Unset: the process-wide default. */
  leaseBackend?: LeaseBackendName;
  /**
   * How long, in milliseconds, objects are kept that expired only because the wall clock was set forward by
   * more than a minute. Default ten minutes; 0: not at all.
   */
  expiryGraceMs?: number;
  /**
   * `immediate`: what becomes garbage is collected within a second of its last reference or its expiry, as a `Scheduler` with
   * `immediate` does. Default: on request, or by a `Scheduler` of the caller's.
   */
  collect?: 'on-request' | 'immediate';
}
/** Some of the options; where several are given, later ones win. */
export type DBOpt = Readonly<DBOptions>;

export function mergedOptions(opts: readonly DBOpt[]): DBOptions {
  if (opts.some((opt) => typeof opt !== 'object')) {
    throw invalidArgument('an option of a DB is not an object', { remedy: "like { durability: 'visible' }" });
  }
  return Object.assign({}, ...opts);
}

/** Isolates content between namespaces: a namespace has to write the bytes it wants. */
export const withPolicyIsolated: DBOpt = { policy: 'isolated' };
/** Who gets the events. */
export const withEventsPublisher = (publisher: EventsPublisher): DBOpt => ({ publisher });
/** Whether this host collects a tree shared over etcd. */
export const withEtcdGC = (enable: boolean): DBOpt => ({ enableEtcdGC: enable });
/** Who owns the leases that are made. */
export const withLeaseBackend = (name: LeaseBackendName): DBOpt => ({ leaseBackend: name });

/** How a store is opened. */
export interface OpenOptions extends DBOptions {
  /**
   * Reads an existing store in its current state, without a byte written: on a read-only file system, as a
   * user without write access, or beside the process that has it open. Everything that process has
   * acknowledged is visible; its later changes are not, except that blobs and directories of snapshots may
   * disappear. Every change is FailedPrecondition. Default false.
   */
  readOnly?: boolean;
  /**
   * false: NotFound if there is no store; nothing is created, in the root or in the cluster. Default true.
   */
  create?: boolean;
  /**
   * Directory of the store; created (0711) if missing. A relative path is resolved at the call. When another
   * directory takes its place, writes, walks and mounts are Unavailable until it is back.
   */
  root: string;
  /** `memory` keeps the records in memory only (tests, experiments); blobs and snapshots are on disk all the same. */
  engine?: 'lmdb' | 'memory';
  /**
   * Keeps the records in an etcd cluster, shared with other hosts; `engine` is then the engine of this host's
   * mirror.
   */
  etcd?: EtcdConfig;
  /** Built-in snapshotters to open; default both, or `native` on a new file system on which overlays cannot work. */
  snapshotters?: readonly SnapshotterName[];
  /** Carrier of the graph core; default: the addon, or WebAssembly if that does not load. */
  core?: 'native' | 'wasm';
}

const knownOptions = new Set([
  'readOnly',
  'create',
  'root',
  'engine',
  'etcd',
  'snapshotters',
  'core',
  'policy',
  'durability',
  'publisher',
  'log',
  'enableEtcdGC',
  'leaseBackend',
  'expiryGraceMs',
  'collect',
]);

export function validateOptions(options: OpenOptions): void {
  if (typeof options?.root !== 'string' || options.root === '') {
    throw invalidArgument('openDB needs a root directory', {
      remedy: 'openDB({ root: "/var/lib/ebbtide" })',
    });
  }
  for (const name of Object.keys(options)) {
    if (!knownOptions.has(name)) {
      throw invalidArgument(`openDB has no option "${name}"`, {
        remedy: `known: ${[...knownOptions].join(', ')}`,
      });
    }
  }
  const choices = {
    engine: ['lmdb', 'memory'],
    core: ['native', 'wasm'],
    policy: ['shared', 'isolated'],
    durability: ['flushed', 'visible'],
    collect: ['on-request', 'immediate'],
  } as const;
  for (const [name, allowed] of Object.entries(choices)) {
    const value = options[name as keyof typeof choices];
    if (value !== undefined && !(allowed as readonly string[]).includes(value)) {
      throw invalidArgument(`openDB option ${name} is "${value}"`, {
        remedy: `use one of ${allowed.join(', ')}`,
      });
    }
  }
  if (options.readOnly) checkReadOnly(options);
  checkGrace(options.expiryGraceMs);
  for (const name of options.snapshotters ?? []) {
    if (!snapshotterNames.includes(name)) {
      throw invalidArgument(`there is no snapshotter "${name}"`, {
        remedy: `known: ${snapshotterNames.join(', ')}`,
      });
    }
  }
}

function checkReadOnly({ etcd, engine, create, collect }: OpenOptions): void {
  const other = Object.entries({
    'collect: immediate': collect === 'immediate',
    etcd: etcd !== undefined,
    'engine: memory': engine === 'memory',
    'create: true': create === true,
  }).find(([, isGiven]) => isGiven);
  if (other === undefined) return;
  throw invalidArgument(
    `openDB cannot have readOnly and ${other[0]}: what is read is a store on disk that is there`,
    {
      remedy: 'leave one of them out',
    },
  );
}

/**
 * Distinguishes a host with given parts from others on its machine: content may be shared, snapshotters have
 * one owner.
 */
export function directoryOf(
  content: ContentBackend,
  backends: ReadonlyMap<string, SnapshotterBackend>,
): string | undefined {
  const roots = [...[...backends].sort().map(([, backend]) => backend.root), content.root];
  const root = roots.find((one) => one !== undefined);
  return root === undefined ? undefined : resolve(root);
}
