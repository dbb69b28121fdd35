/**
 * `npm run bench -- core`: the graph core by its two carriers, side by side in one run: CPU time, since WebAssembly works in
 * the event loop's turns and the addon on a thread beside it. Graphs as hosts have them: images with an index, manifests,
 * layers and the snapshots of these, in the order of their creation; a tenth of the layers are shared, a tenth of the images
 * are gone. Live marks: the first run that counts them, runs of which nothing has changed, and runs after one image was
 * deleted; commits of an image each, in a graph without them and in one with them, alternately; and saved with the graph, loaded,
 * and the first run after that. `--nodes 1000000` for one size only, `--rounds 5`, `--core native` for one
 * carrier (a hundred million nodes are too many for WebAssembly's memory).
 */
import { parseArgs } from 'node:util';
import { EdgeKind, NodeFlag } from '../src/engine/contract.js';
import { type GraphCore, GraphOp } from '../src/engine/graph.js';
import { present } from '../src/errors.js';
import { type CoreKind, coreKinds, createGraph } from '../src/graph/carriers.js';
import { describeMachine } from './machine.js';
import { median } from './statistics.js';

const LAYERS = 6;
/** An image, an index, a manifest, a config; each layer and its snapshot. */
const NODES = 4 + 2 * LAYERS;

/** Changes that make the image whose nodes begin at `first`. */
function image(first: number): number[] {
  const ops: number[] = [];
  const set = (at: number, flags: number): void => void ops.push(GraphOp.set, first + at, flags, 0, 0);
  const add = (from: number, to: number, kind: number): void =>
    void ops.push(GraphOp.add, first + from, first + to, kind);
  const number = first / NODES;
  const there = NodeFlag.present | NodeFlag.collectible;
  set(0, number % 10 === 3 ? there : there | NodeFlag.root);
  for (let at = 1; at < NODES; at++) set(at, there);
  add(0, 1, EdgeKind.structural);
  add(1, 2, EdgeKind.label);
  add(2, 3, EdgeKind.label);
  for (let layer = 0; layer < LAYERS; layer++) {
    const [blob, snapshot] = [4 + layer, 4 + LAYERS + layer];
    const isShared = (number + layer) % 10 === 0 && number > 10;
    // A number of an earlier image, spread over all of them.
    const from = isShared ? ((number * 7919) % (number - 1)) * NODES - first : 0;
    add(2, from + blob, EdgeKind.label);
    if (layer > 0) add(snapshot, snapshot - 1, EdgeKind.structural);
  }
  add(3, NODES - 1, EdgeKind.label);
  return ops;
}

function fill(graph: GraphCore, nodes: number): void {
  const images = Math.floor(nodes / NODES);
  for (let i = 0; i < images; ) {
    const ops: number[] = [];
    for (const end = Math.min(images, i + 500); i < end; i++)
      for (const word of image(i * NODES)) ops.push(word);
    graph.apply(Uint32Array.from(ops));
  }
}

/** Of each round; the first one after the graph was loaded has a row of its own. */
const MARKS = 4;

/** CPU milliseconds of all threads. */
async function cost<T>(work: () => T): Promise<{ ms: number; result: Awaited<T> }> {
  const before = process.cpuUsage();
  const result = await work();
  const { user, system } = process.cpuUsage(before);
  return { ms: (user + system) / 1000, result };
}

const steps = [
  'fill',
  'first mark',
  'mark',
  'save',
  'load',
  'save with marks',
  'load with marks',
  'live: first after that',
  'live: first',
  'live: nothing changed',
  'live: one image gone',
  'an image, no live marks',
  'an image, live marks',
] as const;
type Costs = Record<(typeof steps)[number], number[]>;

async function measure(nodes: number, rounds: number): Promise<void> {
  const kinds = chosen.map((kind) => ({ kind, graph: createGraph(kind) }));
  const costs = {} as Partial<Record<CoreKind, Costs>>;
  let marked: number | undefined;
  const unmarked = {} as Record<CoreKind, Buffer>;
  for (const { kind, graph } of kinds) {
    const own = Object.fromEntries(steps.map((step) => [step, [] as number[]])) as Costs;
    costs[kind] = own;
    own.fill.push((await cost(() => fill(graph, nodes))).ms);
    // The first marks compile the code.
    for (let i = 0; i < 2; i++) {
      await graph.mark(0n);
      graph.endRun();
    }
    const save = await cost(() => graph.save());
    own.save.push(save.ms);
    unmarked[kind] = save.result;
  }
  for (let round = 0; round < rounds; round++) {
    for (const { kind, graph } of kinds) {
      const own = present(costs[kind], 'the costs of a carrier');
      for (let i = 0; i <= MARKS; i++) {
        const { ms, result } = await cost(() => graph.mark(0n));
        marked ??= result.marked;
        if (marked !== result.marked) throw new Error('the carriers differ');
        graph.endRun();
        own[i === 0 ? 'first mark' : 'mark'].push(ms);
      }
      own.load.push((await cost(() => graph.load(unmarked[kind]))).ms);
      await measureLive(graph, nodes, own);
      await measureSaved(graph, own);
    }
  }
  for (const step of steps) {
    const [native = '–', wasm = '–'] = coreKinds.map((kind) => figure(costs[kind]?.[step]));
    const row = [nodes, step, native, wasm, figure([Number(native) / Number(wasm)])];
    console.log(`| ${row.join(' | ')} |`);
  }
}

/** Of what was measured. */
function figure(samples: readonly number[] | undefined): string {
  const value = samples === undefined ? Number.NaN : median(samples);
  return Number.isNaN(value) ? '–' : value.toPrecision(3);
}

/** Runs of each kind that are measured together: one alone is too short for the clock. */
const LIVE_RUNS = 20;

/** After a load: without live marks. */
async function measureLive(graph: GraphCore, nodes: number, costs: Costs): Promise<void> {
  const images = Math.floor(nodes / NODES);
  const run = async (): Promise<void> => {
    await graph.mark(0n, { live: true });
    graph.candidates();
    graph.endRun();
  };
  const each = async (step: keyof Costs, work: (i: number) => unknown): Promise<void> => {
    const { ms } = await cost(async () => {
      for (let i = 0; i < LIVE_RUNS; i++) await work(i);
    });
    costs[step].push(ms / LIVE_RUNS);
  };
  // An image that nothing shares a layer with comes and goes at once.
  const first = images * NODES;
  const [comes, goes] = comeAndGo(first);
  const commits = (): void => {
    for (let n = 0; n < 200; n++) {
      graph.apply(comes);
      graph.apply(goes);
    }
  };
  commits();
  costs['an image, no live marks'].push((await cost(commits)).ms / 200);
  costs['live: first'].push((await cost(run)).ms);
  // As a collection would: a run that finds much garbage takes the time of that.
  await graph.mark(0n, { live: true });
  const garbage = graph.candidates();
  graph.endRun();
  setAll(graph, garbage, 0);
  await run();
  commits();
  await run();
  costs['an image, live marks'].push((await cost(commits)).ms / 200);
  await run();
  await each('live: nothing changed', run);
  const there = NodeFlag.present | NodeFlag.collectible;
  const setImage = (i: number, flags: number): void => {
    const number = ((i * 97 + 11) % Math.floor(images / 10)) * 10;
    graph.apply(Uint32Array.of(GraphOp.set, number * NODES, flags, 0, 0));
  };
  await each('live: one image gone', (i) => {
    setImage(i, there);
    return run();
  });
  for (let i = 0; i < LIVE_RUNS; i++) setImage(i, there | NodeFlag.root);
  setAll(graph, garbage, there);
}

async function measureSaved(graph: GraphCore, costs: Costs): Promise<void> {
  while (!graph.bringUpToDate());
  const { ms, result: image } = await cost(() => graph.save());
  costs['save with marks'].push(ms);
  costs['load with marks'].push((await cost(() => graph.load(image))).ms);
  const run = await cost(() => graph.mark(0n, { live: true }));
  costs['live: first after that'].push(run.ms);
  graph.candidates();
  graph.endRun();
}

function setAll(graph: GraphCore, ids: Uint32Array, flags: number): void {
  const ops: number[] = [];
  for (const id of ids) ops.push(GraphOp.set, id, flags, 0, 0);
  graph.apply(Uint32Array.from(ops));
}

/** Changes that make an image, and those that take it away again. */
function comeAndGo(first: number): [Uint32Array, Uint32Array] {
  const ops = image(first);
  const back: number[] = [];
  const ids = new Set<number>();
  for (let i = 0; i < ops.length; ) {
    const [code, a = 0, b = 0, c = 0] = ops.slice(i, i + 5);
    if (code === GraphOp.add) back.push(GraphOp.remove, a, b, c);
    else ids.add(a);
    i += code === GraphOp.set ? 5 : 4;
  }
  for (const id of ids) back.push(GraphOp.set, id, 0, 0, 0);
  for (const id of ids) back.push(GraphOp.free, id);
  return [Uint32Array.from(ops), Uint32Array.from(back)];
}

const { values } = parseArgs({
  options: {
    nodes: { type: 'string' },
    rounds: { type: 'string', default: '5' },
    core: { type: 'string' },
  },
});
const chosen = coreKinds.filter((kind) => values.core === undefined || kind === values.core);
const sizes = values.nodes === undefined ? [100_000, 1_000_000, 10_000_000] : [Number(values.nodes)];
const { cpu, node, date } = describeMachine('/');
console.log(`${cpu}; Node ${node}; ${date}\n`);
console.log(
  '| nodes | CPU of | native, ms | WebAssembly, ms | native / WebAssembly |\n|---|---|---|---|---|',
);
for (const nodes of sizes) await measure(nodes, Number(values.rounds));
