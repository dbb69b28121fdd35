/** Takes every figure of a server, in rounds, and makes the table's rows of them. */
import type { Server } from '../../test/conformance/servers.js';
import { median } from '../statistics.js';
import { type Delays, type Lists, measure, type Rate, type Transfer } from './measure.js';

export interface Plan {
  bytes: number;
  seconds: number;
  clients: readonly number[];
  /** Objects that are deleted in one measurement. */
  deletes: number;
  lists: number;
  collections: number;
  garbage: number;
  rate: number;
}

export interface Figure {
  name: string;
  unit: string;
  better: 'higher' | 'lower';
}

const MIB = 2 ** 20;
const operations = ['info', 'get', 'create', 'update', 'delete'] as const;
const titles: Record<(typeof operations)[number], string> = {
  info: 'content info',
  get: 'image get',
  create: 'image create',
  update: 'image label update',
  delete: 'image delete',
};

type Take = (server: Server, plan: Plan) => Promise<[Figure, number][]>;

const higher = (name: string, unit: string): Figure => ({ name, unit, better: 'higher' });
const lower = (name: string, unit: string): Figure => ({ name, unit, better: 'lower' });

const transfers: Take = async (server, plan) => {
  const { bytes } = plan;
  const speed = (t: Transfer): number => t.bytes / MIB / t.seconds;
  const written = await measure<Transfer>(server, 'write', { bytes });
  const { digest } = written.result;
  const at = await measure<Transfer>(server, 'read', { bytes, digest });
  const stream = await measure<Transfer>(server, 'read', { bytes, digest, stream: true });
  const perGib = (cpu: number): number => (cpu * 2 ** 30) / bytes;
  return [
    [higher('content write, 1 MiB messages', 'MiB/s'), speed(written.result)],
    [higher('content read, a call a MiB', 'MiB/s'), speed(at.result)],
    [higher('content read, one stream', 'MiB/s'), speed(stream.result)],
    [lower('server CPU, write', 's/GiB'), perGib(written.cpuSeconds)],
    [lower('server CPU, read, a call a MiB', 's/GiB'), perGib(at.cpuSeconds)],
    [lower('server CPU, read, one stream', 's/GiB'), perGib(stream.cpuSeconds)],
  ];
};

const unaryCalls: Take = async (server, plan) => {
  const rows: [Figure, number][] = [];
  for (const op of operations) {
    for (const clients of plan.clients) {
      const count = plan.deletes;
      const { result, cpuSeconds } = await measure<Rate>(server, 'unary', {
        ...{ op, clients, count, seconds: plan.seconds },
      });
      const name = `${titles[op]}, ${clients} client${clients === 1 ? '' : 's'}`;
      rows.push([higher(name, '/s'), result.calls / result.seconds]);
      rows.push([lower(`${name}: p99`, 'ms'), result.ms.p99]);
      // Set-up is part of it where calls need objects.
      if (op === 'info' || op === 'get') {
        rows.push([lower(`${name}: server CPU`, 'µs/call'), (cpuSeconds * 1e6) / result.calls]);
      }
    }
  }
  return rows;
};

const listing: Take = async (server, plan) => {
  const { result } = await measure<Lists>(server, 'list', { namespace: 'list', count: 7 });
  if (result.entries !== plan.lists) throw new Error(`${result.entries} images are listed of ${plan.lists}`);
  const title = `list of ${plan.lists.toLocaleString('en-US')} images`;
  return [[lower(title, 'ms'), median(result.ms)]];
};

const collecting: Take = async (server, plan) => {
  const { result } = await measure<Delays>(server, 'collect', {
    ...{ rounds: plan.collections, garbage: plan.garbage, rate: plan.rate, seconds: plan.seconds * 2 },
  });
  const [idle, during] = [result.idle.all!, result.during.all!];
  return [
    [lower(`collection of ${plan.garbage} blobs, as its client waits`, 'ms'), median(result.collections)],
    [lower('calls, no collection: p50', 'ms'), idle.p50],
    [lower('calls, no collection: p99', 'ms'), idle.p99],
    [lower('calls, during a collection: p50', 'ms'), during.p50],
    [lower('calls, during a collection: p99', 'ms'), during.p99],
    [lower('calls, during a collection: max', 'ms'), during.max],
    [lower('p99 that a collection adds', 'ms'), during.p99 - idle.p99],
  ];
};

const groups: readonly [string, Take][] = [
  ['content', transfers],
  ['calls', unaryCalls],
  ['lists', listing],
  ['collection', collecting],
];

export interface Row extends Figure {
  group: string;
  ebbtide?: number;
  containerd?: number;
  /** The daemon's services on node:http2, when that is measured too. */
  nodeHttp2?: number;
  /** How many times better ebbtide is; below 1: how much worse. Not for differences. */
  ratio?: number;
  /** The same of the daemon's services on node:http2. */
  nodeRatio?: number;
}

export async function takeFigures(
  servers: readonly Server[],
  plan: Plan,
  rounds: number,
  said: (text: string) => void,
): Promise<Row[]> {
  const rows = new Map<string, Row>();
  const samples = new Map<string, number[]>();
  for (let round = 0; round < rounds; round++) {
    for (const [group, take] of groups) {
      // The side that is measured first alternates.
      for (const server of round % 2 === 0 ? servers : [...servers].reverse()) {
        said(`round ${round + 1} of ${rounds}, ${group}: ${server.side}`);
        for (const [figure, value] of await take(server, plan)) {
          rows.set(figure.name, rows.get(figure.name) ?? { group, ...figure });
          const key = `${server.side} ${figure.name}`;
          samples.set(key, [...(samples.get(key) ?? []), value]);
        }
      }
    }
  }
  return [...rows.values()].map((row) => complete(row, samples));
}

function complete(row: Row, samples: ReadonlyMap<string, readonly number[]>): Row {
  const of = (side: Server['side']): number | undefined => {
    const values = samples.get(`${side} ${row.name}`);
    return values === undefined ? undefined : median(values);
  };
  const [ebbtide, containerd, nodeHttp2] = [of('ebbtide'), of('containerd'), of('node-http2')];
  const done: Row = { ...row };
  if (ebbtide !== undefined) done.ebbtide = ebbtide;
  if (containerd !== undefined) done.containerd = containerd;
  if (nodeHttp2 !== undefined) done.nodeHttp2 = nodeHttp2;
  if (containerd === undefined || row.name.includes('adds')) return done;
  const better = (ours: number): number => (row.better === 'lower' ? containerd / ours : ours / containerd);
  if (ebbtide !== undefined) done.ratio = better(ebbtide);
  if (nodeHttp2 !== undefined) done.nodeRatio = better(nodeHttp2);
  return done;
}
