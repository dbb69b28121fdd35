/**
 * The daemon: opens a root, serves it on a unix socket until it is stopped, closes it. The store's lock
 * ensures that a root has one daemon. Called by `ebbtide serve` and by tests.
 *
 * Stopping: no new calls; open ones may finish within a deadline and are aborted then; a collection under way
 * finishes its slice; the store is closed last. A kill at any moment loses nothing that was acknowledged.
 */
import type { DB } from '../db.js';
import { isKind } from '../errors.js';
import type { GCStats } from '../gc/stats.js';
import { openDB } from '../open.js';
import { readPolicy } from '../policy/file.js';
import type { Policy } from '../policy/policy.js';
import { Collections } from './collections.js';
import type { DaemonOptions } from './config.js';
import { Endpoint } from './connections/endpoint.js';
import { Refusals } from './connections/refusals.js';
import { EventExchange } from './event-exchange.js';
import { createLog, type Logger, storeLog, takeConsole } from './log.js';
import type { Metrics } from './metrics/metrics.js';
import { StoreUsage } from './metrics/store-usage.js';
import { Pictures } from './pictures.js';
import { Policies } from './policies.js';
import { reload } from './reload.js';
import { RootWatch } from './root-watch.js';
import { type ObserveMethod, sharedOf } from './rpc-server.js';
import { removeRunFile, writeRunFile } from './run-file.js';
import type { Service, ServiceHost } from './service.js';
import { proxiedServices, servicesOf } from './service-lists.js';
import type { ActivatedSocket } from './systemd/activation.js';
import { type Notifier, notifier } from './systemd/notify.js';
import { version } from './version-info.js';

export class Daemon {
  readonly address: string;
  /** `host:port` of the metrics, if they are served. */
  readonly metricsAddress: string | undefined;
  readonly #parts: Parts & { giveConsoleBack(): void };
  #stopping: Promise<void> | undefined;
  #reloading: Promise<void> | undefined;
  #readNext: (() => Promise<DaemonOptions>) | undefined;

  private constructor(parts: Parts & { giveConsoleBack(): void }) {
    this.#parts = parts;
    this.address = parts.address;
    this.metricsAddress = parts.metricsServer?.address;
  }

  /**
   * Unavailable: another process has the root, or listens at the address. On failure nothing is left.
   */
  static async start(options: DaemonOptions): Promise<Daemon> {
    const log = createLog(options.logLevel);
    const giveConsoleBack = takeConsole(log);
    const undo: (() => Promise<unknown>)[] = [async () => giveConsoleBack()];
    try {
      return new Daemon({ ...(await startParts(options, log, undo)), giveConsoleBack });
    } catch (error) {
      for (const step of undo.reverse()) await step().catch(() => undefined);
      throw error;
    }
  }

  /** Idempotent: later calls wait for the same end. */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    const { log, systemd, stopping, endpoints, collections, policies, db, options } = this.#parts;
    const { metricsServer, refusals, root } = this.#parts;
    log.info('stopping');
    void systemd.report('stopping');
    stopping.abort();
    await removeRunFile(root.path);
    const { shutdownMs } = options.limits;
    const ends = await Promise.all(endpoints.map((endpoint) => endpoint.stop(shutdownMs)));
    if (ends.some(({ aborted }) => aborted)) log.warn({ afterMs: shutdownMs }, 'open calls were aborted');
    refusals.close();
    await policies.close();
    await collections.close();
    await metricsServer?.close();
    await db.close();
    root.close();
    await this.#reloading;
    systemd.close();
    log.info('stopped');
    this.#parts.giveConsoleBack();
  }

  /**
   * SIGHUP: takes over what `read` returns, as far as that is possible without a restart. A configuration that is not
   * valid is logged and changes nothing. A call during another is covered by one more reading.
   */
  async reload(read: () => Promise<DaemonOptions>): Promise<void> {
    this.#readNext = read;
    this.#reloading ??= this.#reload();
    await this.#reloading;
  }

  async #reload(): Promise<void> {
    const { log, systemd, stopping, collections, policies, options } = this.#parts;
    for (let read = this.#readNext; read !== undefined; read = this.#readNext) {
      this.#readNext = undefined;
      if (stopping.signal.aborted) break;
      await systemd.report('reloading');
      try {
        const next = await read();
        // The file may have changed under its name.
        const policy = await policyIn(next);
        const { changed, needRestart } = reload(options, next);
        policies.replace(policy);
        log.level = options.logLevel;
        if (changed.includes('gc') || changed.includes('scheduler'))
          await collections.reschedule(options.gc, options.scheduler);
        log.info({ changed }, 'reloaded the configuration');
        if (needRestart.length > 0)
          log.warn({ fields: needRestart }, 'these fields change with a restart only');
      } catch (error) {
        log.error({ err: error }, 'the configuration was not reloaded: the last one stays in effect');
      }
      await systemd.report('ready');
    }
    this.#reloading = undefined;
  }
}

interface Parts {
  readonly address: string;
  readonly options: DaemonOptions;
  readonly log: Logger;
  readonly systemd: Notifier;
  readonly stopping: AbortController;
  readonly db: DB;
  readonly endpoints: readonly Endpoint[];
  readonly collections: Collections;
  readonly policies: Policies;
  readonly refusals: Refusals;
  readonly root: RootWatch;
  readonly metricsServer: { address: string; close(): Promise<void> } | undefined;
}

const policyIn = async ({ policyFile }: DaemonOptions): Promise<Policy | undefined> =>
  policyFile === undefined ? undefined : readPolicy(policyFile);

async function startParts(
  options: DaemonOptions,
  log: Logger,
  undo: (() => Promise<unknown>)[],
): Promise<Parts> {
  const { root, limits, policy, snapshotters, etcd, expiryGraceMs, sockets } = options;
  // Before anything is opened: a mistake in it is found at the start.
  const retention = await policyIn(options);
  const events = new EventExchange(limits.subscriberEvents);
  const db = await openDB({
    root,
    policy,
    ...(snapshotters && { snapshotters }),
    publisher: events,
    log: storeLog(log),
    ...(expiryGraceMs !== undefined && { expiryGraceMs }),
    ...(etcd && { etcd, enableEtcdGC: true }),
  });
  undo.push(() => db.close());
  if (options.mounts) {
    for (const error of await db.mounts.sweep()) log.warn(`a mount is left over: ${error}`);
  }
  const place = new RootWatch(root, (level, message) => log[level](message));
  undo.push(async () => place.close());
  const metrics = options.metrics === undefined ? undefined : await loadMetrics();
  const stopping = new AbortController();
  const usage = new StoreUsage(db, stopping.signal, (error) =>
    log.warn({ err: error }, 'measuring the disk for metrics failed'),
  );
  const logRun = runLog(log);
  const collected = (outcome: Parameters<typeof logRun>[0]): void => {
    usage.collected();
    metrics?.counts.collected(outcome);
    logRun(outcome);
  };
  const collections = new Collections(db, options.gc, options.scheduler, {
    onRun: (outcome) => {
      collected(outcome);
    },
  });
  undo.push(() => collections.close());
  const policies = new Policies(db, root, retention, { log, onRun: collected });
  undo.push(() => policies.close());
  const pictures = new Pictures(db, stopping.signal);
  const host: ServiceHost = {
    db,
    root,
    rootIdentity: place.identity,
    events,
    limits,
    stopping: stopping.signal,
    collect: (signal) => collections.collect(signal),
    policies,
    pictures,
    transfer: options.transfer,
    mounts: options.mounts,
    observe: (run, statsOf) => collections.observe(run, statsOf),
  };
  const started = performance.now();
  const connections = (): number => endpoints.reduce((sum, endpoint) => sum + endpoint.connections, 0);
  const stats = async (): Promise<unknown> => ({
    daemon: { version, pid: process.pid, address: main.address, upMs: performance.now() - started },
    store: db.engine.stats(),
    graph: db.engine.graph.stats(),
    garbage: await db.garbage(),
    marksChecked: { checks: db.marksChecked.checks, alarms: db.marksChecked.alarms },
    orphans: db.orphans,
    clockSteps: db.expiryTime.steps,
    connections: connections(),
  });
  const refusals = new Refusals((counts) => log.warn(counts, 'connections ended'));
  undo.push(async () => refusals.close());
  const endpoints: Endpoint[] = [];
  const shared = sharedOf(limits);
  const open = async (place: string | ActivatedSocket, services: readonly Service[]): Promise<Endpoint> => {
    const refused = (reason: string): void => {
      metrics?.counts.refused(reason);
      refusals.count(reason);
    };
    const endpoint = await Endpoint.open(place, limits, services, {
      observe: metrics?.counts.observe ?? notObserved,
      refused,
      shared,
    });
    undo.push(() => endpoint.stop(0));
    endpoints.push(endpoint);
    return endpoint;
  };
  // One run, under way or waiting, covers all deletions up to now.
  const proxied = proxiedServices(host, () => collections.run());
  const proxyPlace = sockets?.proxy ?? options.proxyAddress;
  const proxy = proxyPlace === undefined ? undefined : await open(proxyPlace, proxied);
  const main = await open(sockets?.main ?? options.address, servicesOf(host, stats));
  metrics?.counts.watch(db, {
    connections,
    calls: () => endpoints.reduce((sum, endpoint) => sum + endpoint.calls, 0),
    clientBytes: () => shared.ledger.bytes,
    subscribers: () => events.subscribers,
    usage,
  });
  const metricsServer = await metrics?.serve(
    options.metrics ?? '',
    metrics.counts.registry,
    () => !stopping.signal.aborted,
    () => pictures.page(),
  );
  if (metricsServer !== undefined) undo.push(() => metricsServer.close());
  await writeRunFile(place.path, main.address).catch((error: unknown) => {
    log.warn({ err: error }, 'the command line finds this daemon with --address only');
  });
  const systemd = notifier((message) => log.warn(message));
  await systemd.report('ready', `serving ${root} on ${main.address}`);
  const { address } = main;
  log.info({ root, address, proxy: proxy?.address, metrics: metricsServer?.address, version }, 'serving');
  return {
    ...{
      address,
      options,
      log,
      systemd,
      stopping,
      db,
      endpoints,
      collections,
      policies,
      metricsServer,
      refusals,
    },
    root: place,
  };
}

/** Loading its library takes a tenth of the start-up time, and most daemons serve no metrics. */
async function loadMetrics(): Promise<{
  counts: Metrics;
  serve: typeof import('./metrics/metrics.js').serveMetrics;
}> {
  const { Metrics, serveMetrics } = await import('./metrics/metrics.js');
  return { counts: new Metrics(), serve: serveMetrics };
}

const notObserved: ObserveMethod = () => () => undefined;

/** Logs collections that removed something; logs one that keeps failing for the same reason only once. */
function runLog(log: Logger): (outcome: { stats: GCStats } | { error: unknown }) => void {
  let logged: string | undefined;
  return (outcome) => {
    if ('error' in outcome) {
      if (isKind(outcome.error, 'Canceled')) {
        log.debug('collection ended early');
        return;
      }
      const reason = String(outcome.error);
      log[reason === logged ? 'debug' : 'error']({ err: outcome.error }, 'collection failed');
      logged = reason;
      return;
    }
    logged = undefined;
    const { removed, orphans, bytesFreed, metaD, pauseMax, backendErrors } = outcome.stats;
    const idle = Object.keys({ ...removed, ...orphans }).length === 0 && backendErrors === 0;
    log[idle ? 'debug' : 'info'](
      { removed, orphans, bytesFreed, metaD, pauseMax, backendErrors },
      'collected',
    );
  };
}
