/**
 * Opens the etcd engine: settings, client, mirror, session, in this order, and undoes all of it when one of them fails.
 * Called by src/open.ts and by embedders.
 */
import { rm } from 'node:fs/promises';
import { resolve } from 'node:path';
import { failedPrecondition } from '../../errors.js';
import { NoStore } from '../../no-store.js';
import type { EngineOptions } from '../contract.js';
import type { CoreEngine } from '../core/engine.js';
import { openLmdbEngine, requireStore } from '../lmdb/engine.js';
import { openMemoryEngine } from '../memory/engine.js';
import { EtcdClient } from './client/client.js';
import { type EtcdConfig, etcdSettings } from './client/options.js';
import { hostIdOf } from './cluster/identity.js';
import { NameTaken, Session } from './cluster/session.js';
import { Committer } from './commit/commit.js';
import { Counters } from './commit/counters.js';
import { EtcdEngine } from './engine.js';
import { Layout, Sys, VERSION_NAME } from './format/layout.js';
import { Mirror } from './mirror/mirror.js';
import { MirrorState } from './mirror/mirror-state.js';

/** How an engine over etcd is opened. */
export interface EtcdEngineOptions extends EngineOptions {
  /** Where the cluster is. */
  etcd: EtcdConfig;
  /** Makes the default name of this host unique on its machine: its directory. */
  place?: string;
  /** The same for a host that was put together from parts: the directory of one. */
  directory?: string | undefined;
  /** Directory of the mirror's LMDB files; undefined: a mirror in memory, loaded at each start. */
  mirrorDir?: string;
  /** false: NotFound where this host has no mirror, or the cluster no tree; nothing is made. Default true. */
  create?: boolean;
}

/**
 * Opens the engine on a cluster. Unavailable: no member responds within the dial timeout; nothing stays open.
 * InvalidArgument: an option; FailedPrecondition: refused credentials, a tree of a later layout.
 */
export async function openEtcdEngine(options: EtcdEngineOptions): Promise<EtcdEngine> {
  const warn = options.warn ?? (() => {});
  const undo: (() => Promise<unknown>)[] = [];
  try {
    if (options.create === false && options.mirrorDir !== undefined) requireStore(resolve(options.mirrorDir));
    const { client, session } = await connect(options, warn);
    undo.push(async () => client.close());
    undo.push(() => session.close());
    const { engine, wasOther } = await openMirrorEngine(options, client);
    undo.push(() => engine.close());
    const layout = new Layout(client.settings.backendId);
    const mirror = new Mirror({ client, layout, engine, wasOther, warn });
    undo.push(() => mirror.close());
    await mirror.start();
    const counters = new Counters(client, layout);
    const { indexer } = options;
    const committer = new Committer({ client, layout, indexer, counters, session, mirror });
    await committer.dropAbandonedStages();
    return new EtcdEngine({
      client,
      layout,
      mirror,
      session,
      counters,
      committer,
    });
  } catch (error) {
    for (const close of undo.reverse()) await close().catch(() => undefined);
    throw error;
  }
}

interface Connected {
  client: EtcdClient;
  session: Session;
}

/** A client whose host has a session. */
async function connect(options: EtcdEngineOptions, warn: (message: string) => void): Promise<Connected> {
  const { etcd } = options;
  const place = options.place ?? options.mirrorDir;
  const settings = etcdSettings(etcd, place);
  const client = new EtcdClient(settings);
  try {
    await client.range(Sys.head, { keysOnly: true, timeoutMs: settings.dialTimeoutMs });
    if (options.create === false) await requireTree(client);
    await requireLayout(client);
    if (etcd.hostId !== undefined || place !== undefined) return await begun(client, warn, place);
    const { directory = '' } = options;
    for (;;) {
      const hostId = await hostIdOf(client, directory);
      const own = client.as(etcdSettings({ ...etcd, hostId }));
      try {
        // Only a directory makes sure that the host with the name now is this host's predecessor.
        return await begun(own, warn, directory, directory === '');
      } catch (error) {
        if (!(error instanceof NameTaken)) throw error;
      }
    }
  } catch (error) {
    client.close();
    throw error;
  }
}

/** NoStore when the cluster has nothing under the prefix, which may be mistyped. */
async function requireTree(client: EtcdClient): Promise<void> {
  const { kvs } = await client.range('', { end: '', keysOnly: true, limit: 1 });
  if (kvs.length > 0) return;
  throw new NoStore('tree', client.settings.prefix);
}

/** Before anything is written. A later revision of the records is no other layout (schema/migrations.ts). */
async function requireLayout(client: EtcdClient): Promise<void> {
  const { kvs } = await client.range(VERSION_NAME);
  const version = kvs[0]?.value.toString('utf8') ?? '0';
  if (/^\d+$/.test(version)) return;
  const { prefix } = client.settings;
  throw failedPrecondition(
    `the tree ${prefix} in etcd has layout "${version.slice(0, 64)}"; this version knows v1`,
    {
      object: prefix,
      remedy: 'use the version of ebbtide that its other hosts have',
    },
  );
}

async function begun(
  client: EtcdClient,
  warn: (message: string) => void,
  place = '',
  claims = false,
): Promise<Connected> {
  const session = new Session(client, warn, { place, claims });
  try {
    await session.current();
  } catch (error) {
    await session.close();
    throw error;
  }
  return { client, session };
}

/** The embedded engine of the mirror; one that holds another tree is removed first. */
async function openMirrorEngine(
  options: EtcdEngineOptions,
  client: EtcdClient,
): Promise<{ engine: CoreEngine; wasOther: boolean }> {
  const { indexer, graph, warn } = options;
  const mirrorDir = options.mirrorDir === undefined ? undefined : resolve(options.mirrorDir);
  const parts = { indexer, graph, durability: 'visible' as const, ...(warn && { warn }) };
  if (mirrorDir === undefined) return { engine: await openMemoryEngine(parts), wasOther: false };
  const engine = await openLmdbEngine(mirrorDir, parts);
  if (MirrorState.matches(engine, client.clusterId, client.settings.prefix))
    return { engine, wasOther: false };
  warn?.(`${mirrorDir} is not a mirror of this tree and is made again`);
  await engine.close();
  graph.clear();
  await rm(mirrorDir, { recursive: true, force: true });
  return { engine: await openLmdbEngine(mirrorDir, parts), wasOther: true };
}
