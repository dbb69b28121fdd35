/** The options of a DB: which there are and what they may be. Called by open.ts before anything is opened. */
import { resolve } from 'node:path';
import type { ContentBackend, SnapshotterBackend } from './backends/contract.js';
import type { Log } from './db-host.js';
import type { LeaseBackendName } from './defaults.js';
import type { Durability } from './engine/contract.js';
import type { EtcdConfig } from './engine/etcd/options.js';
import { invalidArgument } from './errors.js';
import { checkGrace } from './gc/schedule/expiry-clock.js';
import type { ContentPolicy, EventsPublisher } from './stores/host.js';

export const snapshotterNames = ['native', 'overlayfs'] as const;
export type SnapshotterName = (typeof snapshotterNames)[number];

/** Options a DB is made with. */
export interface DBOptions {
  policy?: ContentPolicy;
  durability?: Durability;
  publisher?: EventsPublisher;
  log?: Log;
  /** Whether this host collects a tree shared over etcd; an embedded store is collected either way. */
  enableEtcdGC?: boolean;
  /** Whose leases are: `''`, `bolt` (this host's own) or `etcd` (all hosts'). Unset: the process-wide default. */
  leaseBackend?: LeaseBackendName;
  /**
   * Milliseconds for which what expired only because the wall clock was set forward, by more than a minute, is kept.
   * Default ten minutes; 0: not at all.
   */
  expiryGraceMs?: number;
}
/** Some of the options; where several are given, later ones win. */
export type DBOpt = Readonly<DBOptions>;

export function mergedOptions(opts: readonly DBOpt[]): DBOptions {
  if (opts.some((opt) => typeof opt !== 'object')) {
    throw invalidArgument('an option of a DB is not an object', { remedy: "like { durability: 'visible' }" });
  }
  return Object.assign({}, ...opts);
}

/** Content is isolated between namespaces: its bytes must be written to be had. */
export const withPolicyIsolated: DBOpt = { policy: 'isolated' };
export const withEventsPublisher = (publisher: EventsPublisher): DBOpt => ({ publisher });
export const withEtcdGC = (enable: boolean): DBOpt => ({ enableEtcdGC: enable });
export const withLeaseBackend = (name: LeaseBackendName): DBOpt => ({ leaseBackend: name });

export interface OpenOptions extends DBOptions {
  /**
   * Reads an existing store as it is now, without a byte written: on a file system that is mounted read-only, as a user who may
   * only read, or beside the process that has it open. What that process had acknowledged is seen; what it does later
   * is not, but for blobs and directories of snapshots, which may go. Every change is FailedPrecondition. Default false.
   */
  readOnly?: boolean;
  /** false: NotFound where there is no store; nothing is made, in the root or in the cluster. Default true. */
  create?: boolean;
  /**
   * Directory the store lives in; made (0711) when missing. A relative path is one of the moment of the call. When
   * another directory takes its place, writes, walks and mounts are Unavailable until it is back.
   */
  root: string;
  /** `memory` keeps the records in memory only (tests, experiments); blobs and snapshots are on disk all the same. */
  engine?: 'lmdb' | 'memory';
  /** Keeps the records in an etcd cluster, shared with other hosts; `engine` is then where this host's mirror is. */
  etcd?: EtcdConfig;
  /** Built-in snapshotters to open; default both. */
  snapshotters?: readonly SnapshotterName[];
  /** How the graph core is to come; default: as an addon, or as WebAssembly where that does not load. */
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

function checkReadOnly({ etcd, engine, create }: OpenOptions): void {
  const other = Object.entries({
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

/** What distinguishes a host of given parts from others on its machine: content may be shared, snapshotters have one owner. */
export function directoryOf(
  content: ContentBackend,
  backends: ReadonlyMap<string, SnapshotterBackend>,
): string | undefined {
  const roots = [...[...backends].sort().map(([, backend]) => backend.root), content.root];
  const root = roots.find((one) => one !== undefined);
  return root === undefined ? undefined : resolve(root);
}
