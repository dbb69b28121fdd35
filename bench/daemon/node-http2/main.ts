/** `node dist/bench/daemon/node-http2/main.js --root DIR --address SOCK`: the daemon's store and services on node:http2. */
import { createServer } from 'node:http';
import { parseArgs } from 'node:util';
import { openDB } from '../../../src/open.js';
import { Collections } from '../../../src/server/collections.js';
import { EventExchange } from '../../../src/server/event-exchange.js';
import { defaultLimits } from '../../../src/server/limits.js';
import { Pictures } from '../../../src/server/pictures.js';
import { Policies } from '../../../src/server/policies.js';
import { servicesOf } from '../../../src/server/service-lists.js';
import { nodeHttp2Server } from './server.js';

const { values } = parseArgs({
  options: { root: { type: 'string' }, address: { type: 'string' }, metrics: { type: 'string' } },
});
const { root, address, metrics } = values;
if (root === undefined || address === undefined) throw new Error('needs --root and --address');
const events = new EventExchange(defaultLimits.subscriberEvents);
const db = await openDB({ root, snapshotters: ['native', 'overlayfs'], publisher: events, log: () => {} });
const collections = new Collections(db, 'on-request', {}, { onRun: () => undefined });
const log = { info: () => undefined, warn: () => undefined };
const policies = new Policies(db, root, undefined, { log, onRun: () => undefined });
const stopping = new AbortController();
const host = {
  ...{ db, root, rootIdentity: '', events, limits: defaultLimits, stopping: stopping.signal },
  collect: (signal: AbortSignal) => collections.collect(signal),
  policies,
  pictures: new Pictures(db, stopping.signal),
  mounts: false,
  transfer: false,
  observe: <T>(run: () => Promise<T>) => run(),
};
const { server, running } = nodeHttp2Server(
  defaultLimits,
  servicesOf(host, () => ({})),
);
server.listen(address);
if (metrics !== undefined) {
  const [name, port] = metrics.split(':');
  createServer((_request, response) => response.end(`ebbtide_calls_running ${running()}\n`)).listen(
    Number(port),
    name,
  );
}
process.once('SIGTERM', () => {
  stopping.abort();
  server.close();
  void collections
    .close()
    .then(() => db.close())
    .then(() => process.exit(0));
});
