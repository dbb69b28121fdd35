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
  /** Images that have a name while others are removed. */
  bulk: number;
}

/** Which server a figure is of. */
export type Column = 'ebbtide' | 'containerd' | 'containerd2' | 'nodeHttp2';

export const columns: readonly Column[] = ['ebbtide', 'containerd', 'containerd2', 'nodeHttp2'];

export interface Measured {
  column: Column;
  server: Server;
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

export type Take = (server: Server, plan: Plan, column: Column) => Promise<[Figure, number][]>;

const higher = (name: string, unit: string): Figure => ({ name, unit, better: 'higher' });
export const lower = (name: string, unit: string): Figure => ({ name, unit, better: 'lower' });

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

export const callGroups: readonly (readonly [string, Take])[] = [
  ['content', transfers],
  ['calls', unaryCalls],
  ['lists', listing],
  ['collection', collecting],
];

export interface Row extends Figure {
  group: string;
  /** Medians. */
  values: Partial<Record<Column, number>>;
  /** How many times better ebbtide is than each other; below 1: how much worse. Not for differences. */
  ratios: Partial<Record<Column, number>>;
}

export async function takeFigures(
  servers: readonly Measured[],
  groups: readonly (readonly [string, Take])[],
  plan: Plan,
  rounds: number,
  said: (text: string) => void,
): Promise<Row[]> {
  const rows = new Map<string, Row>();
  const samples = new Map<string, number[]>();
  for (let round = 0; round < rounds; round++) {
    for (const [group, take] of groups) {
      // The side that is measured first alternates.
      for (const { server, column } of round % 2 === 0 ? servers : [...servers].reverse()) {
        said(`round ${round + 1} of ${rounds}, ${group}: ${column}`);
        for (const [figure, value] of await take(server, plan, column)) {
          rows.set(figure.name, rows.get(figure.name) ?? { group, ...figure, values: {}, ratios: {} });
          const key = `${column} ${figure.name}`;
          samples.set(key, [...(samples.get(key) ?? []), value]);
        }
      }
    }
  }
  return [...rows.values()].map((row) => complete(row, samples));
}

function complete(row: Row, samples: ReadonlyMap<string, readonly number[]>): Row {
  const values: Row['values'] = {};
  const ratios: Row['ratios'] = {};
  for (const column of columns) {
    const taken = samples.get(`${column} ${row.name}`);
    if (taken !== undefined) values[column] = median(taken);
  }
  const { ebbtide, ...others } = values;
  if (ebbtide !== undefined && !row.name.includes('adds')) {
    for (const [column, other] of Object.entries(others) as [Column, number][])
      ratios[column] = row.better === 'lower' ? other / ebbtide : ebbtide / other;
  }
  return { ...row, values, ratios };
}
