/** `ebbtide doctor`: which core is in use, versions, limits, paths, and what this machine permits. */
import { existsSync, readFileSync, statfsSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import type { Command } from 'commander';
import { nativeZstd } from '../../../backends/archive/compression/zstd-native.js';
import { canMount, canMountOverlays } from '../../../backends/mounts.js';
import { lacking } from '../../../backends/sys.js';
import type { Finding } from '../../../check/findings.js';
import { snapshotterNames } from '../../../db-options.js';
import { MAX_COMPONENT_BYTES } from '../../../engine/schema/keys.js';
import { isKind } from '../../../errors.js';
import type { OrphanState } from '../../../gc/sweep/orphan-guard.js';
import { coreInfo } from '../../../graph/carriers.js';
import { MAX_IDENTIFIER_BYTES } from '../../../model/identifiers.js';
import { MAX_LABEL_BYTES } from '../../../model/labels.js';
import { NoStore } from '../../../no-store.js';
import { layout } from '../../../open.js';
import { etcdConfig } from '../../etcd-options.js';
import { hostDocument } from '../../output/documents.js';
import { bytes, type Output, printable, shortTime } from '../../output/output.js';
import { openForReading } from '../../read-only.js';
import { daemonOf } from '../../remote/find-daemon.js';
import { type GlobalOptions, verb } from '../../runner.js';
import type { Store } from '../../store.js';
import { DAMAGED_EXIT_CODE } from './check.js';

/** Limit on the findings in a report. */
const DAMAGE_SHOWN = 20;

export function doctor(program: Command): void {
  program
    .command('doctor')
    .description('show the core in use, versions, limits, paths, and whether the store is sound')
    .option(
      '--check',
      'also open the store and compare it with the disk, as `check` does; exits with 5 on damage',
    )
    .action(
      verb<{ check?: boolean }>(async ({ options, out }, _args, { check }) => {
        const report = await examine(options);
        let failure: unknown;
        if (check) {
          report.store = await checkStore(options, (text) => out.notice(text)).catch((error: unknown) => {
            failure = error;
            return { state: error instanceof NoStore ? 'absent' : 'unusable' };
          });
        }
        out.object(report, () => print(out, report));
        if (failure !== undefined) throw failure;
      }),
    );
}

/** Whether this machine permits something, and why not. */
interface Permission {
  ok: boolean;
  reason?: string | undefined;
}

interface Report {
  core: { inUse: string; reason?: string | undefined; file: string };
  versions: Record<string, string>;
  limits: { keyComponentBytes: number; identifierBytes: number; labelBytes: number; openFiles?: number };
  paths: { root: string; database: string; content: string; snapshotters: Record<string, string> };
  machine: {
    uid: number;
    cpus: number;
    freeBytes: number;
    mounts: Permission;
    /** Tested with files of its own, so not where nothing may be written. */
    overlays?: Permission;
    zstd: { decoder: 'libzstd' | 'javascript'; version?: string; reason?: string | undefined };
    /** System calls that need the missing addon. */
    lacking?: string | undefined;
  };
  store?: StoreReport;
}

interface StoreReport {
  /** Unusable: it cannot be opened; the error follows the report. */
  state: 'sound' | 'damaged' | 'absent' | 'unusable';
  damaged?: number;
  leftovers?: number;
  /** The first ones. */
  damage?: Pick<Finding, 'kind' | 'object'>[];
  /** The address of the daemon that has the store. */
  daemon?: string;
  cleanShutdown?: boolean;
  records?: number;
  fileBytes?: number;
  revision?: number;
  orphans?: OrphanState;
  graph?: { nodes: number; edges: number; bytes: number };
  hosts?: ReturnType<typeof hostDocument>[];
}

async function examine(options: GlobalOptions): Promise<Report> {
  const { root } = options;
  const core = coreInfo();
  const openFiles = openFilesLimit();
  const { version, reason } = nativeZstd;
  return {
    core: {
      inUse: core.core,
      ...(core.reason !== undefined && { reason: core.reason }),
      file: core.path,
    },
    versions: {
      ebbtide: versionOf('ebbtide'),
      node: process.version,
      lmdb: versionOf('lmdb'),
      etcd3: versionOf('etcd3'),
      piscina: versionOf('piscina'),
    },
    limits: {
      keyComponentBytes: MAX_COMPONENT_BYTES,
      identifierBytes: MAX_IDENTIFIER_BYTES,
      labelBytes: MAX_LABEL_BYTES,
      ...(openFiles !== undefined && { openFiles }),
    },
    paths: {
      root,
      database: layout.database(root),
      content: layout.content(root),
      snapshotters: Object.fromEntries(
        snapshotterNames.map((name) => [name, layout.snapshotter(root, name)]),
      ),
    },
    machine: {
      uid: process.getuid?.() ?? 0,
      cpus: availableParallelism(),
      freeBytes: freeBytes(root),
      mounts: permissionOf(await canMount()),
      // The directory of the snapshots, which may be a file system of its own; if missing, where it would be.
      ...(!options.readOnly && {
        overlays: permissionOf(await canMountOverlays(nearest(layout.snapshotter(root, 'overlayfs')))),
      }),
      zstd: version === undefined ? { decoder: 'javascript', reason } : { decoder: 'libzstd', version },
      ...(lacking() !== undefined && { lacking: lacking() }),
    },
  };
}

const permissionOf = ({ ok, reason }: Permission): Permission => ({
  ok,
  ...(reason !== undefined && { reason }),
});

function print(out: Output, report: Report): void {
  const { core, versions, limits, paths, machine, store } = report;
  const { uid, mounts, overlays, zstd } = machine;
  const sections: Record<string, Record<string, string | number | undefined>> = {
    core: { 'in use': core.inUse, why: core.reason, file: core.file },
    versions,
    limits: {
      'key component': `${limits.keyComponentBytes} bytes`,
      identifier: `${limits.identifierBytes} bytes`,
      label: `${limits.labelBytes} bytes, key and value together`,
      'open files': limits.openFiles ?? 'unlimited',
    },
    paths: {
      root: paths.root,
      database: paths.database,
      content: paths.content,
      ...paths.snapshotters,
      'free disk': bytes(machine.freeBytes),
    },
    machine: {
      user: uid === 0 ? 'root' : `uid ${uid}`,
      mounts: mounts.ok ? 'permitted' : `not permitted: ${mounts.reason}`,
      overlays: overlays && overlayText(overlays),
      cpus: machine.cpus,
      'system calls': machine.lacking ?? 'all',
      'zstd layers':
        zstd.decoder === 'libzstd'
          ? `libzstd ${zstd.version}`
          : `decoded in JavaScript, four times slower (${zstd.reason}): install libzstd 1.4 or later`,
    },
    ...(store && { store: storeLines(store) }),
  };
  for (const [section, entries] of Object.entries(sections)) {
    out.line(section);
    for (const [name, value] of Object.entries(entries))
      if (value !== undefined) out.line(`  ${name.padEnd(14)} ${printable(String(value))}`);
  }
}

const overlayText = ({ ok, reason }: Permission): string =>
  ok
    ? 'work on the file system of the root'
    : `do not work on the file system of the root (the native snapshotter does): ${reason}`;

function storeLines(store: StoreReport): Record<string, string | number | undefined> {
  const { state, damaged, leftovers = 0, damage, daemon, records, fileBytes, graph, hosts } = store;
  const perRecord =
    daemon === undefined && records ? ` (${Math.round((fileBytes ?? 0) / records)} bytes a record)` : '';
  return {
    state: state === 'damaged' ? `damaged: ${damaged} findings, which \`ebbtide check\` lists` : state,
    leftovers: leftovers > 0 ? leftovers : undefined,
    damage: damage?.map(({ kind, object }) => `${kind} ${object}`).join(', '),
    daemon: daemon && `in use by the daemon at ${daemon}; its graph is compared by \`ebbtide check --graph\``,
    'last shutdown':
      store.cleanShutdown === undefined ? undefined : store.cleanShutdown ? 'clean' : 'not clean (recovered)',
    records,
    file: fileBytes === undefined ? undefined : `${bytes(fileBytes)}${perRecord}`,
    revision: store.revision,
    orphans: store.orphans && orphanLine(store.orphans),
    graph: graph && `${graph.nodes} nodes, ${graph.edges} edges, ${bytes(graph.bytes)}`,
    hosts: hosts?.map(hostText).join(', '),
  };
}

/** Version of an installed package, whose package.json may not be among its exports. */
function versionOf(name: string): string {
  const entry = name === 'ebbtide' ? import.meta.filename : createRequire(import.meta.url).resolve(name);
  for (let dir = dirname(entry); dir !== dirname(dir); dir = dirname(dir)) {
    const file = join(dir, 'package.json');
    if (!existsSync(file)) continue;
    const found = JSON.parse(readFileSync(file, 'utf8')) as { name?: string; version?: string };
    if (found.name === name && found.version !== undefined) return found.version;
  }
  return 'unknown';
}

/** Undefined if there is no limit. */
function openFilesLimit(): number | undefined {
  const report = process.report?.getReport() as
    | { userLimits?: { open_files?: { soft: number | string } } }
    | undefined;
  const limit = report?.userLimits?.open_files?.soft;
  return typeof limit === 'number' ? limit : undefined;
}

function freeBytes(path: string): number {
  const { bavail, bsize } = statfsSync(nearest(path));
  return bavail * bsize;
}

/** The path itself, or the nearest directory above it. */
function nearest(path: string): string {
  let dir = path;
  while (!isDirectory(dir) && dir !== dirname(dir)) dir = dirname(dir);
  return dir;
}

const isDirectory = (path: string): boolean => existsSync(path) && statSync(path).isDirectory();

async function checkStore(options: GlobalOptions, notice: (text: string) => void): Promise<StoreReport> {
  const { root, readOnly = false } = options;
  const etcd = etcdConfig(options);
  await using daemon = await daemonOf(options);
  if (daemon !== undefined) {
    const { store, orphans } = (await daemon.stats()) as {
      store: { records: number; fileBytes: number };
      orphans: OrphanState;
    };
    const { records, fileBytes } = store;
    const { address } = daemon;
    return {
      ...(await soundness(daemon)),
      ...{ daemon: address, records, fileBytes, orphans },
      ...(await hostsIn(daemon)),
    };
  }
  await using db = await openForReading(
    { root, ...(etcd && { etcd }), ...(readOnly && { readOnly }) },
    notice,
  );
  const { records, fileBytes, revision } = db.engine.stats();
  const { nodes, edges, bytes } = db.engine.graph.stats();
  return {
    ...(await soundness(db)),
    ...(!db.isReadOnly && { cleanShutdown: db.engine.cleanStart }),
    records,
    fileBytes,
    revision,
    orphans: db.orphans,
    graph: { nodes, edges, bytes },
    ...(await hostsIn(db)),
  };
}

/** Lists damage, and then sets the exit code of `ebbtide check`. */
async function soundness(
  store: Pick<Store, 'check'>,
): Promise<Pick<StoreReport, 'state' | 'damaged' | 'leftovers' | 'damage'>> {
  const { sound, damaged, leftovers, findings } = await store.check();
  if (sound) return { state: 'sound', leftovers };
  process.exitCode = DAMAGED_EXIT_CODE;
  const damage = findings.filter(({ severity }) => severity === 'damage').slice(0, DAMAGE_SHOWN);
  return {
    state: 'damaged',
    damaged,
    leftovers,
    damage: damage.map(({ kind, object }) => ({ kind, object })),
  };
}

function orphanLine({ foreign, kept }: OrphanState): string | undefined {
  if (foreign) {
    return (
      'the store was empty when it was opened, but there are blobs or snapshots: its metadata may be lost or not mounted; ' +
      'ebbtide gc --dry-run --full lists them'
    );
  }
  return kept > 0 ? `${kept} kept by the orphan guard; ebbtide gc --dry-run --full lists them` : undefined;
}

/** The hosts of a shared tree. */
async function hostsIn({ hosts }: Pick<Store, 'hosts'>): Promise<Pick<StoreReport, 'hosts'>> {
  const found = await hosts?.list().catch((error: unknown) => {
    if (isKind(error, 'FailedPrecondition')) return undefined;
    throw error;
  });
  return found === undefined ? {} : { hosts: found.map(hostDocument) };
}

/** For an absent host: what it keeps, and how to remove it. */
function hostText({ id, state, seenAt, leases }: ReturnType<typeof hostDocument>): string {
  if (state !== 'gone') return `${id} (${state})`;
  const since = seenAt === undefined ? '' : ` since ${shortTime(seenAt)}`;
  return `${id} (gone${since}, keeps ${leases} leases; if it will not return: ebbtide hosts rm ${id})`;
}
