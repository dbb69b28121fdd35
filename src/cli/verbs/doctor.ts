/** `ebbtide doctor`: which core is in use, versions, limits, paths, and what this machine permits. */
import { existsSync, readFileSync, statfsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { dirname, join } from 'node:path';
import type { Command } from 'commander';
import { nativeZstd } from '../../backends/archive/zstd-native.js';
import { canMount, canMountOverlays } from '../../backends/mounts.js';
import { lacking } from '../../backends/sys.js';
import type { HostInfo } from '../../cluster-hosts.js';
import { snapshotterNames } from '../../db-options.js';
import type { EtcdConfig } from '../../engine/etcd/options.js';
import { MAX_COMPONENT_BYTES } from '../../engine/schema/keys.js';
import { isKind } from '../../errors.js';
import { coreInfo } from '../../gc/graph.js';
import type { OrphanState } from '../../gc/orphan-guard.js';
import { MAX_IDENTIFIER_BYTES } from '../../model/identifiers.js';
import { MAX_LABEL_BYTES } from '../../model/labels.js';
import { layout, openDB } from '../../open.js';
import { etcdConfig } from '../etcd-options.js';
import { exitCodes } from '../exit-codes.js';
import { bytes, printable, shortTime } from '../output.js';
import { findDaemon, verb } from '../runner.js';
import type { Store } from '../store.js';
import { DAMAGED_EXIT_CODE } from './check.js';

/** Findings that a report names. */
const DAMAGE_SHOWN = 20;

export function doctor(program: Command): void {
  program
    .command('doctor')
    .description('show the core in use, versions, limits, paths, and whether the store is sound')
    .option(
      '--check',
      'also open the store and compare it with what is on disk, as `check` does; exits with 5 when there is damage',
    )
    .action(
      verb<{ check?: boolean }>(async ({ options, out }, _args, { check }) => {
        const report = await examine(options.root, check === true, etcdConfig(options));
        out.object(report, () => {
          for (const [section, entries] of Object.entries(report)) {
            out.line(section);
            for (const [name, value] of Object.entries(entries)) {
              out.line(`  ${name.padEnd(14)} ${Array.isArray(value) ? value.join(', ') || 'none' : value}`);
            }
          }
        });
      }),
    );
}

async function examine(
  root: string,
  check: boolean,
  etcd: EtcdConfig | undefined,
): Promise<Record<string, Record<string, unknown>>> {
  const core = coreInfo();
  const mount = await canMount();
  // Where the snapshots are, which may be a file system of its own; else where they would be.
  const overlays = await canMountOverlays(nearest(layout.snapshotter(root, 'overlayfs')));
  return {
    core: {
      'in use': core.core,
      ...(core.reason !== undefined && { why: core.reason }),
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
      'key component': `${MAX_COMPONENT_BYTES} bytes`,
      identifier: `${MAX_IDENTIFIER_BYTES} bytes`,
      label: `${MAX_LABEL_BYTES} bytes, key and value together`,
      'open files': openFilesLimit(),
    },
    paths: {
      root,
      database: layout.database(root),
      content: layout.content(root),
      ...Object.fromEntries(snapshotterNames.map((name) => [name, layout.snapshotter(root, name)])),
      'free disk': freeDisk(root),
    },
    machine: {
      user: process.getuid?.() === 0 ? 'root' : `uid ${process.getuid?.()}`,
      mounts: mount.ok ? 'permitted' : `not permitted: ${mount.reason}`,
      overlays: overlays.ok
        ? 'work on the file system of the root'
        : `do not work on the file system of the root (the native snapshotter does): ${overlays.reason}`,
      cpus: availableParallelism(),
      'system calls': lacking() ?? 'all',
      'zstd layers': zstdDecoder(),
    },
    ...(check && { store: await checkStore(root, etcd) }),
  };
}

const zstdDecoder = (): string =>
  nativeZstd.version === undefined
    ? `decoded in JavaScript, four times slower (${nativeZstd.reason}): install libzstd 1.4 or later`
    : `libzstd ${nativeZstd.version}`;

/** Version of an installed package; its package.json need not be among its exports. */
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

function openFilesLimit(): string {
  const report = process.report?.getReport() as
    | { userLimits?: { open_files?: { soft: number | string } } }
    | undefined;
  return String(report?.userLimits?.open_files?.soft ?? 'unknown');
}

function freeDisk(path: string): string {
  const { bavail, bsize } = statfsSync(nearest(path));
  return bytes(bavail * bsize);
}

/** The path itself, or the nearest directory above that is there. */
function nearest(path: string): string {
  let dir = path;
  while (!existsSync(dir) && dir !== dirname(dir)) dir = dirname(dir);
  return dir;
}

async function checkStore(root: string, etcd: EtcdConfig | undefined): Promise<Record<string, unknown>> {
  const daemon = await findDaemon(root);
  const isEmbedded = daemon === undefined && etcd === undefined;
  if (isEmbedded && !existsSync(layout.database(root))) {
    process.exitCode = exitCodes.NotFound;
    return { state: `no store at ${root}` };
  }
  if (daemon !== undefined) {
    const { RemoteStore } = await import('../remote/store.js');
    await using remote = await RemoteStore.connect(daemon);
    const { store, orphans } = (await remote.stats()) as {
      store: { records: number; fileBytes: number };
      orphans: OrphanState;
    };
    return {
      ...(await soundness(remote)),
      daemon: `in use by the daemon at ${daemon}; its graph is compared by \`ebbtide check --graph\``,
      records: store.records,
      file: bytes(store.fileBytes),
      ...orphanLine(orphans),
      ...(await hostsIn(remote)),
    };
  }
  await using db = await openDB({ root, create: false, ...(etcd && { etcd }) });
  const { records, fileBytes, revision } = db.engine.stats();
  const graph = db.engine.graph.stats();
  return {
    ...(await soundness(db)),
    'last shutdown': db.engine.cleanStart ? 'clean' : 'not clean (recovered)',
    records,
    file: `${bytes(fileBytes)} (${records > 0 ? Math.round(fileBytes / records) : 0} bytes a record)`,
    revision,
    ...orphanLine(db.orphans),
    graph: `${graph.nodes} nodes, ${graph.edges} edges, ${bytes(graph.bytes)}`,
    ...(await hostsIn(db)),
  };
}

/** Damage is listed, and sets the exit code of `ebbtide check`. */
async function soundness(store: Pick<Store, 'check'>): Promise<Record<string, unknown>> {
  const { sound, damaged, leftovers, findings } = await store.check();
  if (!sound) process.exitCode = DAMAGED_EXIT_CODE;
  const damage = findings.filter(({ severity }) => severity === 'damage').slice(0, DAMAGE_SHOWN);
  return {
    state: sound ? 'sound' : `damaged: ${damaged} findings, of which \`ebbtide check\` tells more`,
    ...(leftovers > 0 && { leftovers }),
    ...(!sound && { damage: damage.map(({ kind, object }) => printable(`${kind} ${object}`)) }),
  };
}

function orphanLine({ foreign, kept }: OrphanState): Record<string, string> {
  if (foreign) {
    return {
      orphans:
        'the store was empty when it was opened beside blobs or snapshots: its metadata may be lost or not mounted; ' +
        'ebbtide gc --dry-run --full lists them',
    };
  }
  return kept > 0
    ? { orphans: `${kept} kept by the guard of collections; ebbtide gc --dry-run --full lists them` }
    : {};
}

/** The hosts of a shared tree; absent ones with what they keep, and how they are dropped. */
async function hostsIn({ hosts }: Pick<Store, 'hosts'>): Promise<{ hosts?: string[] }> {
  const found = await hosts?.list().catch((error: unknown) => {
    if (isKind(error, 'FailedPrecondition')) return undefined;
    throw error;
  });
  if (found === undefined) return {};
  const text = ({ id, state, seen, leases }: HostInfo): string => {
    if (state !== 'gone') return `${id} (${state})`;
    const since = seen === undefined ? '' : ` since ${shortTime(seen)}`;
    return `${id} (gone${since}, keeps ${leases} leases; never coming back: ebbtide hosts rm ${id})`;
  };
  return { hosts: found.map(text) };
}
