/** Which services are on which socket. Called by daemon.ts. */
import { ProxiedContent, ProxiedSnapshotter, snapshotterBehind } from './proxied.js';
import type { Service, ServiceHost } from './service.js';
import { containersService } from './services/containers.js';
import { contentService } from './services/content.js';
import { diffService } from './services/diff.js';
import { ebbtideService } from './services/ebbtide.js';
import { eventsService } from './services/events.js';
import { healthService } from './services/health.js';
import { imagesService } from './services/images.js';
import { introspectionService } from './services/introspection.js';
import { leasesService } from './services/leases.js';
import { mountsService } from './services/mounts.js';
import { namespacesService } from './services/namespaces.js';
import { sandboxStoreService } from './services/sandbox-store.js';
import { snapshotsService } from './services/snapshots.js';
import { tasksService } from './services/tasks.js';
import { versionService } from './services/version.js';
import { streamingService } from './transfer/streaming.js';
import { Streams } from './transfer/streams.js';
import { transferService } from './transfer/transfer.js';

/** The services for clients. */
export function servicesOf(host: ServiceHost, stats: () => unknown): readonly Service[] {
  const { db } = host;
  return withHealth(host, [
    versionService(),
    introspectionService(host),
    namespacesService(host),
    leasesService(host),
    contentService(db.content, host.limits),
    imagesService(host),
    containersService(host),
    snapshotsService(host.limits, (name) => db.snapshotter(name)),
    sandboxStoreService(host),
    diffService(host),
    eventsService(host),
    tasksService(),
    ebbtideService(host, stats),
    ...(host.mounts ? [mountsService(host)] : []),
    ...(host.transfer ? transferServices(host) : []),
  ]);
}

function transferServices(host: ServiceHost): Service[] {
  const streams = new Streams();
  return [streamingService(streams), transferService(host, streams)];
}

/** The services for containerd's proxy plugins. */
export function proxiedServices(host: ServiceHost, collect: () => Promise<unknown>): readonly Service[] {
  return withHealth(host, [
    versionService(),
    contentService(new ProxiedContent(host.db.content, collect), host.limits),
    snapshotsService(host.limits, (name) => {
      const snapshotter = snapshotterBehind(host.db, name);
      return snapshotter && new ProxiedSnapshotter(snapshotter, collect);
    }),
  ]);
}

/** Adds the health service. */
function withHealth(host: ServiceHost, services: readonly Service[]): readonly Service[] {
  const names = new Set(services.map(({ name }) => name));
  return [...services, healthService(host, names)];
}
