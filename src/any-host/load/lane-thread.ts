/** The thread of lanes.ts: reads the records of its leaves, and ends. */
import { parentPort, workerData } from 'node:worker_threads';
import { Bucket } from '../../bolt/bucket.js';
import { Pages } from '../../bolt/pages.js';
import { Filling } from '../../engine/memory/filling.js';
import { present } from '../../errors.js';
import { indexerOf } from './indexers.js';
import { AHEAD, type Batch, type LaneWork, ROUND } from './lanes.js';
import { type RecordSink, readRecords } from './records.js';

const { pages: shared, root, revision, entered, taken } = workerData as LaneWork;
const pages = Pages.of(present(shared, 'pages'));
const indexer = indexerOf(revision);

let filling = new Filling(indexer);
let complaints: string[] = [];
let posted = 0;

function post(): void {
  const part = filling.part();
  parentPort?.postMessage(
    { part, complaints } satisfies Batch,
    // Nothing here is shared memory.
    [part.names.items, part.names.chunks, part.places, part.ops, part.chunks]
      .flat()
      .map(({ buffer }) => buffer as ArrayBuffer),
  );
  filling = new Filling(indexer);
  complaints = [];
  posted++;
  for (let known = Atomics.load(taken, 0); posted - known >= AHEAD; known = Atomics.load(taken, 0))
    Atomics.wait(taken, 0, known);
}

const sink: RecordSink = {
  record: (key, value) => filling.record(key, value),
  link: (from, relation, to) => filling.link(from, relation, to),
  complain: (what) => complaints.push(what),
};
let leaves = 0;
for (const _ of readRecords(Bucket.root(pages, root, { ...ROUND, isFirst: false, entered }), sink, false))
  if (++leaves % (ROUND.round - ROUND.first) === 0) post();
post();
parentPort?.postMessage(undefined);
