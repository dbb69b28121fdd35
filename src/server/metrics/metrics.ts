/**
 * Prometheus metrics of the daemon and the page that serves them, with /healthz. Called by daemon.ts.
 * Counting an operation costs two additions: the labelled children are looked up once for each method and
 * code.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';
import type { DB } from '../../db.js';
import { invalidArgument, isKind, kindOf } from '../../errors.js';
import type { GCStats } from '../../gc/stats.js';
import { fsError, messageOf } from '../../system/system-errors.js';
import { statusName } from '../messages/status-codes.js';
import type { Page } from '../pictures.js';
import type { ObserveMethod } from '../rpc-server.js';
import { watchGarbage } from './garbage-metrics.js';
import type { StoreUsage } from './store-usage.js';
import { watchUsage } from './usage-metrics.js';

const SECONDS = 1000;
const LATENCY_SECONDS = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, 10, 60];
const PAUSE_SECONDS = [0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.05, 0.2, 1, 5];

export interface Readings {
  connections(): number;
  calls(): number;
  clientBytes(): number;
  subscribers(): number;
  readonly usage: StoreUsage;
}

export class Metrics {
  readonly registry = new Registry();
  readonly #operations = new Counter({
    name: 'ebbtide_operations_total',
    help: 'Calls that ended, by service, method and gRPC code',
    labelNames: ['service', 'method', 'code'] as const,
    registers: [this.registry],
  });
  readonly #latency = new Histogram({
    name: 'ebbtide_operation_seconds',
    help: 'Time from the request to the end of its response',
    labelNames: ['service', 'method'] as const,
    buckets: LATENCY_SECONDS,
    registers: [this.registry],
  });
  readonly #refused = new Counter({
    name: 'ebbtide_connections_refused_total',
    help: 'Connections that the daemon closed, by reason',
    labelNames: ['reason'] as const,
    registers: [this.registry],
  });
  readonly #collections = new Counter({
    name: 'ebbtide_collections_total',
    help: 'Collections by outcome',
    labelNames: ['outcome'] as const,
    registers: [this.registry],
  });
  readonly #markings = new Counter({
    name: 'ebbtide_markings_total',
    help: 'Collections by how they found what is kept: by live marks, by counting these (anew), or from the roots',
    labelNames: ['marking'] as const,
    registers: [this.registry],
  });
  readonly #duration = new Histogram({
    name: 'ebbtide_collection_seconds',
    help: 'Time from the start of a collection to the last removal of a record made durable',
    buckets: LATENCY_SECONDS,
    registers: [this.registry],
  });
  readonly #pauses = new Histogram({
    name: 'ebbtide_collection_pause_seconds',
    help: 'The longest time that a collection kept other work waiting at a stretch',
    buckets: PAUSE_SECONDS,
    registers: [this.registry],
  });
  readonly #removed = new Counter({
    name: 'ebbtide_removed_total',
    help: 'Objects that collections removed, by kind',
    labelNames: ['kind'] as const,
    registers: [this.registry],
  });
  readonly #kept = new Gauge({
    name: 'ebbtide_kept',
    help: 'Objects that the last collection kept, by kind',
    labelNames: ['kind'] as const,
    registers: [this.registry],
  });
  readonly #bytesFreed = new Counter({
    name: 'ebbtide_freed_bytes_total',
    help: 'Bytes of disk that collections freed',
    registers: [this.registry],
  });
  readonly #backendErrors = new Counter({
    name: 'ebbtide_backend_errors_total',
    help: 'Failures of backends during collections; the next one tries again',
    registers: [this.registry],
  });

  readonly #orphans = new Counter({
    name: 'ebbtide_orphans_removed_total',
    help: 'Backend items without a record that collections found and removed, by kind',
    labelNames: ['kind'] as const,
    registers: [this.registry],
  });

  constructor() {
    collectDefaultMetrics({ register: this.registry });
    // Sums of the gauges beside them, under names of counters.
    for (const what of ['handles', 'requests', 'resources'])
      this.registry.removeSingleMetric(`nodejs_active_${what}_total`);
  }

  /** Values that are read at a scrape: sizes of the store, and current activity. */
  watch(db: DB, now: Readings): void {
    const gauge = (name: string, help: string, read: () => number): void => {
      new Gauge({
        name,
        help,
        registers: [this.registry],
        collect() {
          this.set(read());
        },
      });
    };
    const { steps } = db.expiryTime;
    new Counter({
      name: 'ebbtide_clock_steps_total',
      help: 'Times that the wall clock was seen to have been set by more than a minute, by direction',
      labelNames: ['direction'] as const,
      registers: [this.registry],
      collect() {
        this.reset();
        for (const [direction, n] of Object.entries(steps)) this.inc({ direction }, n);
      },
    });
    const stats = () => db.engine.stats();
    gauge('ebbtide_records', 'Records in the store', () => stats().records);
    gauge('ebbtide_file_bytes', 'Bytes of the database file', () => stats().fileBytes);
    gauge(
      'ebbtide_journal_bytes',
      'Bytes of graph changes after the newest checkpoint, which a start replays',
      () => stats().journalBytes,
    );
    gauge(
      'ebbtide_commit_log_bytes',
      'Bytes of commits that are on disk in the log and not yet in the database file',
      () => stats().logBytes,
    );
    watchGarbage(this.registry, db);
    gauge(
      'ebbtide_orphans_kept',
      'Backend items without a record that made the orphan guard stop the last collection; 0: it did not',
      () => db.orphans.kept,
    );
    gauge(
      'ebbtide_store_began_empty',
      '1 when the store was empty when it was opened beside backend items: its metadata may be lost',
      () => Number(db.orphans.foreign),
    );
    gauge('ebbtide_connections', 'Open connections', now.connections);
    gauge(
      'ebbtide_calls_running',
      'Calls that services work on, those of clients that have gone too',
      now.calls,
    );
    gauge('ebbtide_client_bytes', 'Bytes kept for clients: requests, responses, events', now.clientBytes);
    gauge('ebbtide_event_subscribers', 'Open subscriptions to events', now.subscribers);
    watchUsage(this.registry, now.usage);
  }

  observe: ObserveMethod = (service, method) => {
    const latency = this.#latency.labels({ service, method });
    const counts = new Map<number, Counter.Internal>();
    return (code, ms) => {
      let count = counts.get(code);
      if (count === undefined) {
        count = this.#operations.labels({ service, method, code: statusName(code) });
        counts.set(code, count);
      }
      count.inc();
      latency.observe(ms / SECONDS);
    };
  };

  refused(reason: string): void {
    this.#refused.inc({ reason });
  }

  collected(outcome: { stats: GCStats } | { error: unknown }): void {
    if ('error' in outcome) {
      this.#collections.inc({ outcome: kindOf(outcome.error) });
      return;
    }
    const { stats } = outcome;
    this.#collections.inc({ outcome: 'ok' });
    this.#markings.inc({ marking: stats.marking });
    this.#duration.observe(stats.metaD / SECONDS);
    this.#pauses.observe(stats.pauseMax / SECONDS);
    for (const [kind, n] of Object.entries(stats.removed)) this.#removed.inc({ kind }, n);
    this.#kept.reset();
    for (const [kind, n] of Object.entries(stats.marked)) this.#kept.set({ kind }, n);
    this.#bytesFreed.inc(stats.bytesFreed);
    this.#backendErrors.inc(stats.backendErrors);
    for (const [kind, n] of Object.entries(stats.orphans)) this.#orphans.inc({ kind }, n);
  }
}

/**
 * Serves `/metrics`, `/healthz` and, to browsers of this host only, `/view` over HTTP on `host:port`; on the loopback if only a
 * port is given.
 */
export async function serveMetrics(
  address: string,
  registry: Registry,
  healthy: () => boolean,
  page: () => Promise<Page>,
): Promise<{ address: string; close(): Promise<void> }> {
  const { host, port } = parseAddress(address);
  const server = createServer((request, response) => {
    const path = request.url?.split('?')[0];
    if (path === '/healthz') {
      const ok = healthy();
      answer(response, ok ? 200 : 503, { 'content-type': 'text/plain' }, ok ? 'ok\n' : 'stopping\n');
    } else if (path === '/metrics') {
      registry.metrics().then(
        (text) => answer(response, 200, { 'content-type': registry.contentType }, text),
        (error: unknown) => answer(response, 500, plain, String(error)),
      );
    } else if (path === '/view') {
      sendPage(request, response, page);
    } else {
      answer(response, 404, {});
    }
  });
  server.requestTimeout = 10_000;
  server.headersTimeout = 10_000;
  server.maxConnections = CONNECTIONS_MAX;
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      // A failed connection must not end the daemon.
      server.on('error', () => undefined);
      resolve();
    });
  }).catch((error: unknown) => {
    throw fsError('serve metrics on', address, error);
  });
  return { address: boundAddress(server), close: () => closeServer(server) };
}

/** They may be bound to a network; whoever opens more than this takes descriptors that the store needs. */
const CONNECTIONS_MAX = 64;
/** A client that takes nothing of its response for so long is gone. */
const STALLED_MS = 30_000;

const plain = { 'content-type': 'text/plain; charset=utf-8' };

function answer(
  response: ServerResponse,
  status: number,
  headers: Readonly<Record<string, string | number>>,
  body?: string | Buffer,
): void {
  response.setTimeout(STALLED_MS, () => response.destroy());
  response.writeHead(status, headers).end(body);
}

/** The names of what the disk holds are for users of this host, whatever the metrics are bound to. */
function sendPage(request: IncomingMessage, response: ServerResponse, page: () => Promise<Page>): void {
  if (!isOfThisHost(request)) {
    answer(response, 403, plain, 'the page is served on the loopback only\n');
    return;
  }
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    answer(response, 405, { allow: 'GET, HEAD' });
    return;
  }
  page().then(
    ({ headers, body }) => {
      const sized = { ...headers, 'content-length': body.length };
      answer(response, 200, sized, request.method === 'HEAD' ? undefined : body);
    },
    (error: unknown) =>
      answer(response, isKind(error, 'ResourceExhausted') ? 503 : 500, plain, `${messageOf(error)}\n`),
  );
}

const LOOPBACK = /^(?:localhost|127(?:\.\d{1,3}){3}|\[::1\])(?::\d{1,5})?$/i;

/** From the loopback, and by a name of it: another site's name may lead here too. */
function isOfThisHost({ socket, headers }: IncomingMessage): boolean {
  const from = socket.remoteAddress ?? '';
  const isNear = from === '::1' || /^(?:::ffff:)?127\./.test(from);
  return isNear && LOOPBACK.test(headers.host ?? '');
}

function parseAddress(address: string): { host: string; port: number } {
  const match = /^(?:(.*):)?(\d{1,5})$/.exec(address);
  const port = Number(match?.[2]);
  if (match === null || port > 65_535) {
    throw invalidArgument(`"${address}" is not a valid address for metrics`, {
      object: address,
      remedy: 'write host:port, like 127.0.0.1:9464',
    });
  }
  return { host: match[1]?.replace(/^\[|\]$/g, '') || '127.0.0.1', port };
}

function boundAddress(server: Server): string {
  const bound = server.address();
  return bound === null || typeof bound === 'string' ? '' : `${bound.address}:${bound.port}`;
}

function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeAllConnections();
  });
}
