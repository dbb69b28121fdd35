/**
 * containerd.services.introspection.v1.Introspection. Clients look up snapshotters and their platforms here
 * before they unpack; `ctr plugins ls` prints the list.
 */
import { randomUUID } from 'node:crypto';
import { readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { notFound } from '../../errors.js';
import { hostPlatform } from '../../images/platforms.js';
import { type Adaptor, parseFilters } from '../../model/filters.js';
import type { StringMap } from '../../model/records.js';
import { layout } from '../../open.js';
import { makeDirectories } from '../../system/make-directories.js';
import { errnoOf, fsError } from '../../system/system-errors.js';
import { ROOT_IDENTITY } from '../run-file.js';
import { type Service, type ServiceHost, unary } from '../service.js';

interface Plugin {
  type: string;
  id: string;
  requires: string[];
  platforms: { os: string; architecture: string; variant: string }[];
  exports: StringMap;
  capabilities: string[];
}
interface PluginInfoRequest {
  type: string;
  id: string;
}

/** In the order in which containerd starts them. */
const grpcPlugins = [
  'introspection',
  'containers',
  'content',
  'diff',
  'events',
  'healthcheck',
  'images',
  'leases',
  'namespaces',
  'sandboxes',
  'snapshots',
  'tasks',
  'version',
] as const;

const transferPlugins = [
  ['streaming', 'manager'],
  ['transfer', 'local'],
  ['grpc', 'streaming'],
  ['grpc', 'transfer'],
] as const;

const mountPlugins = [
  ['mount-manager', 'bolt'],
  ['grpc', 'mounts'],
] as const;

export function introspectionService(host: ServiceHost): Service {
  const plugins = pluginsOf(host);
  return {
    name: 'containerd.services.introspection.v1.Introspection',
    methods: {
      Plugins: unary(({ filters }: { filters: string[] }) => {
        const matches = parseFilters(filters);
        return { plugins: plugins.filter((plugin) => matches(adapt(plugin))) };
      }),
      Server: unary(async () => ({
        uuid: await serverId(host.root),
        pid: process.pid,
        pidns: Number((await stat('/proc/self/ns/pid').catch(() => undefined))?.ino ?? 0),
      })),
      PluginInfo: unary(({ type, id }: PluginInfoRequest) => {
        const plugin = plugins.find((p) => p.type === type && p.id === id);
        if (plugin === undefined) throw notFound(`plugin "${type}.${id}" not found`, { object: id });
        return { plugin };
      }),
    },
  };
}

function pluginsOf({ db, root, rootIdentity, transfer, mounts }: ServiceHost): Plugin[] {
  const { os, architecture, variant = '' } = hostPlatform();
  // As in containerd: the levels of amd64 affect matching, but do not name the host.
  const here = { os, architecture, variant: architecture === 'amd64' ? '' : variant };
  const plugin = (type: string, id: string, more: Partial<Plugin> = {}): Plugin => ({
    type: `io.containerd.${type}.v1`,
    id,
    requires: [],
    platforms: [],
    exports: {},
    capabilities: [],
    ...more,
  });
  return [
    plugin('content', 'content', { exports: { root: layout.content(root) } }),
    ...[...db.snapshotters()].map(([name, { rebases }]) =>
      plugin('snapshotter', name, {
        platforms: [here],
        exports: { root: layout.snapshotter(root, name) },
        // Clients of 2.2 unpack several layers at once there.
        capabilities: rebases ? ['rebase'] : [],
      }),
    ),
    plugin('metadata', 'bolt', {
      exports: { policy: db.host.policy, root: layout.database(root), [ROOT_IDENTITY]: rootIdentity },
    }),
    plugin('differ', 'walking', { platforms: [here] }),
    plugin('gc', 'scheduler'),
    plugin('sandbox.store', 'local'),
    ...grpcPlugins.map((id) => plugin('grpc', id)),
    ...(mounts ? mountPlugins.map(([type, id]) => plugin(type, id)) : []),
    ...(transfer ? transferPlugins.map(([type, id]) => plugin(type, id)) : []),
  ];
}

/** Filter fields: type, id. */
const adapt =
  ({ type, id }: Plugin): Adaptor =>
  (path) =>
    path[0] === 'type' ? type : path[0] === 'id' ? id : undefined;

/** The id of this root, created on first use. */
async function serverId(root: string): Promise<string> {
  const directory = join(root, 'io.containerd.grpc.v1.introspection');
  const file = join(directory, 'uuid');
  try {
    const id = (await readFile(file, 'utf8')).trim();
    if (id !== '') return id;
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw fsError('read the server id', file, error);
  }
  const id = randomUUID();
  try {
    makeDirectories(directory, 0o700);
    await writeFile(`${file}.new`, id);
    await rename(`${file}.new`, file);
  } catch (error) {
    throw fsError('write the server id', file, error);
  }
  return id;
}
