/**
 * The daemon: opens a root, serves it on a unix socket until told to stop, closes it. One for a root, which the store's
 * own lock sees to. Called by `ebbtide serve` and by tests.
 *
 * Stopping: no new calls; open ones may end within a deadline and are aborted then; a collection under way ends its
 * slice; the store is closed last. A kill at any moment loses nothing that was acknowledged.
 */
import { type DB, openDB } from '../db.js';
import { isKind, wrap } from '../errors.js';
import type { GCStats } from '../gc/stats.js';
import { Collections } from './collections.js';
import type { DaemonOptions } from './config.js';
import { EventExchange } from './event-exchange.js';
import { GarbageAge } from './garbage-age.js';
import { Listener } from './listener.js';
import { createLog, type Logger, storeLog } from './log.js';
import { Metrics, serveMetrics } from './metrics.js';
import { type Notify, notifier } from './notify.js';
import { RpcServer } from './rpc-server.js';
import { removeRunFile, writeRunFile } from './run-file.js';
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
import { namespacesService } from './services/namespaces.js';
import { sandboxStoreService } from './services/sandbox-store.js';
import { snapshotsService } from './services/snapshots.js';
import { tasksService } from './services/tasks.js';
import { versionService } from './services/version.js';
import { version } from './version-info.js';

export class Daemon {
  readonly address: string;
  /** `host:port` of the metrics, when they are served. */
  readonly metricsAddress: string | undefined;
  readonly #parts: Parts;
  #stopping: Promise<void> | undefined;

  private constructor(parts: Parts) {
    this.#parts = parts;
    this.address = parts.listener.path;
    this.metricsAddress = parts.metricsServer?.address;
  }

  /** Unavailable: another process has the root, or listens at the address. Nothing is left behind on failure. */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const log = createLog(options.logLevel);
    const undo: (() => Promise<unknown>)[] = [];
    try {
      return new Daemon(await startParts(options, log, undo));
    } catch (error) {
      for (const step of undo.reverse()) await step().catch(() => undefined);
      throw error;
    }
  }

  /** Again: waits for the same end. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    const { log, notify, stopping, listener, server, collections, db, options, metricsServer } = this.#parts;
    log.info('stopping');
    void notify('stopping');
    stopping.abort();
    await removeRunFile(options.root);
    await listener.refuse();
    const { aborted } = await server.stop(options.limits.shutdownMs, () => listener.cut());
    if (aborted) log.warn({ afterMs: options.limits.shutdownMs }, 'open calls were aborted');
    await listener.close();
    await collections.close();
    await metricsServer?.close();
    await db.close();
    log.info('stopped');
  }
}

interface Parts {
  readonly options: DaemonOptions;
  readonly log: Logger;
  readonly notify: Notify;
  readonly stopping: AbortController;
  readonly db: DB;
  readonly listener: Listener;
  readonly server: RpcServer;
  readonly collections: Collections;
  readonly metricsServer: Awaited<ReturnType<typeof serveMetrics>> | undefined;
}

async function startParts(
  options: DaemonOptions,
  log: Logger,
  undo: (() => Promise<unknown>)[],
): Promise<Parts> {
  const { root, limits, policy, snapshotters } = options;
  const events = new EventExchange(limits.subscriberEvents);
  const db = await openDB({ root, policy, snapshotters, publisher: events, log: storeLog(log) }).catch(
    (error: unknown) => {
      throw isKind(error, 'Unavailable')
        ? wrap('another process has the root', error, { object: root })
        : error;
    },
  );
  undo.push(() => db.close());
  const metrics = new Metrics();
  const age = new GarbageAge(db);
  const collections = new Collections(db, options.gc, options.scheduler, {
    onRun: (outcome) => {
      age.collected();
      metrics.collected(outcome);
      logRun(log, outcome);
    },
  });
  undo.push(() => collections.close());
  const stopping = new AbortController();
  const host: ServiceHost = {
    db,
    root,
    events,
    limits,
    stopping: stopping.signal,
    collect: (signal) => collections.collect(signal),
  };
  const started = performance.now();
  const stats = (): unknown => ({
    daemon: { version, pid: process.pid, address: options.address, upMs: performance.now() - started },
    store: db.engine.stats(),
    graph: db.engine.graph.stats(),
    garbageAgeMs: age.ms,
    connections: listener.connections,
  });
  const server: RpcServer = new RpcServer(
    limits,
    servicesOf(host, stats, () => server.services),
    metrics.observe,
  );
  undo.push(() => server.stop(0, () => undefined));
  const listener = await Listener.listen(options.address, limits, {
    serve: (connection) => server.serve(connection),
    refused: (reason) => {
      metrics.refused(reason);
      log.warn({ reason }, 'connection refused');
    },
  });
  undo.push(() => listener.close());
  metrics.watch(
    db,
    () => age.ms,
    () => listener.connections,
    () => events.subscribers,
  );
  const metricsServer =
    options.metrics === undefined
      ? undefined
      : await serveMetrics(options.metrics, metrics.registry, () => !stopping.signal.aborted);
  if (metricsServer !== undefined) undo.push(() => metricsServer.close());
  await writeRunFile(root, listener.path);
  const notify = notifier((message) => log.warn(message));
  await notify('ready');
  log.info({ root, address: listener.path, metrics: metricsServer?.address, version }, 'serving');
  return { options, log, notify, stopping, db, listener, server, collections, metricsServer };
}

function servicesOf(
  host: ServiceHost,
  stats: () => unknown,
  names: () => ReadonlySet<string>,
): readonly Service[] {
  return [
    versionService(),
    introspectionService(host),
    namespacesService(host),
    leasesService(host),
    contentService(host),
    imagesService(host),
    containersService(host),
    snapshotsService(host),
    sandboxStoreService(host),
    diffService(host),
    eventsService(host),
    tasksService(),
    healthService(host, names),
    ebbtideService(host, stats),
  ];
}

function logRun(log: Logger, outcome: { stats: GCStats } | { error: unknown }): void {
  if ('error' in outcome) {
    log.error({ err: outcome.error }, 'collection failed');
    return;
  }
  const { removed, bytesFreed, metaD, pauseMax, backendErrors } = outcome.stats;
  const idle = Object.keys(removed).length === 0 && backendErrors === 0;
  log[idle ? 'debug' : 'info']({ removed, bytesFreed, metaD, pauseMax, backendErrors }, 'collected');
}
