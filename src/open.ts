/**
 * Opens DBs: `openDB` with everything in one directory, `newDB` from given parts. Called by the command line,
 * the daemon and embedders.
 */
import { existsSync, lstatSync, readlinkSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { openContent } from './backends/content/store.js';
import type { ContentBackend, DiskJobs, SnapshotterBackend } from './backends/contract.js';
import { makeDurableDirectory } from './backends/files.js';
import { MountPoints } from './backends/mount-points.js';
import { NoEntryTypes } from './backends/snapshotters/entry-types.js';
import { openNative } from './backends/snapshotters/native.js';
import { openOverlayfs } from './backends/snapshotters/overlayfs.js';
import { SharedGuards, sharesDirectories } from './cluster.js';
import { DB } from './db.js';
import { DBHost, type HostParts, type Log } from './db-host.js';
import {
  type DBOpt,
  directoryOf,
  mergedOptions,
  type OpenOptions,
  type SnapshotterName,
  snapshotterNames,
  validateOptions,
} from './db-options.js';
import { checkLeaseBackend, LeaseBackend } from './defaults.js';
import type { Engine, EngineOptions } from './engine/contract.js';
import type { EtcdConfig } from './engine/etcd/client/options.js';
import { openEtcdEngine } from './engine/etcd/open.js';
import { openLmdbEngine } from './engine/lmdb/engine.js';
import { openMemoryEngine } from './engine/memory/engine.js';
import { type EbbtideError, failedPrecondition, invalidArgument } from './errors.js';
import { metadataIndexer } from './gc/references.js';
import { ExpiryClock } from './gc/schedule/expiry-clock.js';
import { createDiskPool, type DiskPool } from './gc/sweep/disk-pool.js';
import { createGraph } from './graph/carriers.js';
import { History } from './history/history.js';
import { formatSeconds, NANOS_PER_SECOND, now } from './model/time.js';
import { NoStore } from './no-store.js';
import { layout } from './system/root-layout.js';
import { errnoOf, fsError } from './system/system-errors.js';
import { tracedBackend } from './tracing.js';

const logToStderr: Log = (level, message, details) => {
  if (level === 'info') return;
  process.stderr.write(`ebbtide: ${level}: ${message}${details ? ` ${JSON.stringify(details)}` : ''}\n`);
};

/**
 * A DB from given parts: an engine, a content backend, snapshotters by name. The DB closes them all. With an
 * etcd config the records are in etcd, and `embedded`, if given, must be the engine that was opened on it;
 * without one, a mirror in memory is created. InvalidArgument when there is neither.
 */
export async function newDB(
  etcd: EtcdConfig | undefined,
  embedded: Engine | undefined,
  content: ContentBackend,
  snapshotters: Readonly<Record<string, SnapshotterBackend>>,
  ...opts: DBOpt[]
): Promise<DB> {
  checkClock();
  const backends = new Map(Object.entries(snapshotters));
  if (etcd === undefined || embedded !== undefined) {
    if (etcd !== undefined && embedded?.kind !== 'etcd') {
      throw invalidArgument('records of an etcd tree and of an embedded engine are never mixed', {
        remedy: 'give the etcd config or the embedded engine, not both',
      });
    }
    return assemble(embedded, content, backends, createDiskPool(), opts);
  }
  const options = mergedOptions(opts);
  const log = options.log ?? logToStderr;
  const engine = await openEtcdEngine({
    etcd,
    directory: directoryOf(content, backends),
    indexer: metadataIndexer,
    graph: createGraph(),
    warn: (message) => log('warn', message),
  });
  return assemble(engine, content, backends, createDiskPool(), opts);
}

async function assemble(
  engine: Engine | undefined,
  content: ContentBackend,
  backends: ReadonlyMap<string, SnapshotterBackend>,
  pool: DiskPool,
  opts: readonly DBOpt[],
  own: Pick<HostParts, 'history' | 'mountPoints'> = {},
): Promise<DB> {
  if (engine === undefined) throw invalidArgument('a DB needs an embedded engine or an etcd config');
  const options = mergedOptions(opts);
  checkLeaseBackend(options.leaseBackend, engine.kind === 'etcd');
  const log = options.log ?? logToStderr;
  const { shared } = engine;
  const host = new DBHost({
    engine,
    expiryClock: new ExpiryClock({ graceMs: options.expiryGraceMs, hostId: shared?.hostId, log }),
    guards:
      shared !== undefined && sharesDirectories(shared) ? new SharedGuards(engine.locks, shared) : undefined,
    content: tracedBackend('content', content),
    backends: new Map([...backends].map(([name, backend]) => [name, tracedBackend(name, backend)])),
    policy: options.policy ?? 'shared',
    durability: options.durability ?? 'flushed',
    publisher: options.publisher,
    jobs: pool satisfies DiskJobs,
    log,
    ...own,
  });
  if (shared !== undefined && (options.leaseBackend ?? LeaseBackend) === 'bolt') {
    shared.leaseScope = shared.hostId;
  }
  await host.orphans.lookAtOpen();
  // No await from here until the DB listens: removals of other hosts would be missed.
  host.dirty.load();
  host.expiryClock.load(engine);
  const db = new DB(host, pool, options);
  await db.init();
  return db;
}

/** Times are stored as nanoseconds in 64 bits. */
function checkClock(): void {
  const time = now();
  if (BigInt.asIntN(64, time + LEASES_NS) === time + LEASES_NS) return;
  throw failedPrecondition(
    `the clock of this machine is at ${formatSeconds(time)}: times are stored until 2262`,
    {
      remedy: 'set the clock',
    },
  );
}
/** What is stamped soon, or expires soon, is stored too. */
const LEASES_NS = 366n * 86_400n * NANOS_PER_SECOND;

export { layout };

/**
 * Opens (or creates) the store in `options.root` with the content directory and the built-in snapshotters.
 * Unavailable when another process has it open, unless it is opened read-only; see the engine for the errors
 * of damaged or foreign files.
 */
export async function openDB(options: OpenOptions): Promise<DB> {
  validateOptions(options);
  checkClock();
  const root = resolve(options.root);
  const log = options.log ?? logToStderr;
  const { readOnly = false } = options;
  await useRoot(root, options.create ?? !readOnly);
  const engineOptions = {
    indexer: metadataIndexer,
    graph: createGraph(options.core),
    durability: options.durability ?? ('flushed' as const),
    warn: (message: string) => log('warn', message),
  };
  const cleanup: (() => Promise<void>)[] = [];
  try {
    const engine = await openEngine({ ...options, root }, engineOptions).catch((error: unknown) => {
      throw error instanceof NoStore && error.place === 'directory' ? noStoreAt(root) : error;
    });
    cleanup.push(() => engine.close());
    const pool = createDiskPool();
    cleanup.push(() => pool.close());
    // In parallel, since each waits for the disk; after the engine, whose lock shows that the root is ours.
    const opening = snapshottersOf(root, options).map(async (name) => {
      const open = name === 'native' ? openNative : openOverlayfs;
      try {
        const backend = await open(layout.snapshotter(root, name), { jobs: pool, log, readOnly });
        cleanup.push(() => backend.close());
        return [[name, backend] as const];
      } catch (error) {
        // Nobody has asked for it by name, and it has no snapshots.
        if (options.snapshotters !== undefined || !(error instanceof NoEntryTypes)) throw error;
        log('info', `without the ${name} snapshotter: ${error.message}`);
        return [];
      }
    });
    const contentOpening = openContent(layout.content(root), { jobs: pool, log, readOnly });
    await Promise.allSettled([contentOpening, ...opening]);
    const content = await contentOpening;
    const backends = new Map<string, SnapshotterBackend>((await Promise.all(opening)).flat());
    const history = new History(recordsIn(root, options), readOnly, (message, details) =>
      log('info', message, details),
    );
    cleanup.push(() => history.close());
    const mountPoints = MountPoints.open(layout.mounts(root));
    cleanup.push(async () => mountPoints?.close());
    return await assemble(engine, content, backends, pool, [options, { log }], { history, mountPoints });
  } catch (error) {
    for (const undo of cleanup.reverse()) await undo().catch(() => undefined);
    throw error;
  }
}

/** The directory of the records; undefined if they are in memory. */
function recordsIn(root: string, { engine, etcd }: OpenOptions): string | undefined {
  if (engine === 'memory') return undefined;
  return etcd === undefined ? layout.database(root) : layout.mirror(root);
}

/** For a read-only store, the existing ones. */
const snapshottersOf = (root: string, { snapshotters, readOnly }: OpenOptions): readonly SnapshotterName[] =>
  snapshotters ?? snapshotterNames.filter((name) => !readOnly || existsSync(layout.snapshotter(root, name)));

/** Creates the root if `create` is set. */
async function useRoot(root: string, create: boolean): Promise<void> {
  try {
    if (create) await makeDurableDirectory(root, 0o711);
    else if (!(await stat(root)).isDirectory()) throw notADirectory(root);
  } catch (error) {
    const code = errnoOf(error);
    if (code === 'EEXIST' || code === 'ENOENT') checkLinks(root);
    if (code === 'EEXIST' || code === 'ENOTDIR') throw notADirectory(root);
    if (code === 'ENOENT' && !create) throw noStoreAt(root);
    throw fsError(create ? 'make the root directory' : 'use the root', root, error);
  }
}

/** FailedPrecondition: a link in the path leads nowhere, as to a disk that is not mounted. */
function checkLinks(root: string): void {
  if (dirname(root) !== root) checkLinks(dirname(root));
  const isLink = lstatSync(root, { throwIfNoEntry: false })?.isSymbolicLink() ?? false;
  if (!isLink || existsSync(root)) return;
  throw failedPrecondition(`the link ${root} leads to ${readlinkSync(root)}, which is not there`, {
    object: root,
    remedy: 'mount the disk that it leads to, or name another directory',
  });
}

const noStoreAt = (root: string): NoStore =>
  new NoStore(existsSync(layout.content(root)) ? 'directory without metadata' : 'directory', root);

const notADirectory = (root: string): EbbtideError =>
  failedPrecondition(`the root ${root} is not a directory`, { object: root, remedy: 'name a directory' });

function openEngine(
  { root, engine, etcd, readOnly = false, create = !readOnly }: OpenOptions,
  options: EngineOptions,
): Promise<Engine> {
  const inMemory = engine === 'memory';
  if (etcd !== undefined) {
    const mirror = inMemory ? {} : { mirrorDir: layout.mirror(root) };
    return openEtcdEngine({ ...options, ...mirror, etcd, place: root, create });
  }
  return inMemory
    ? openMemoryEngine(options)
    : openLmdbEngine(layout.database(root), { ...options, create, readOnly });
}
