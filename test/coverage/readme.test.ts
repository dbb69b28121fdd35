/** The README's example compiles and runs as it stands, but for its paths; so does a program of a user's own. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { tempDir } from '../support/db.js';
import { compile, consumer, execute, repository } from './consumer.js';
import { readmeExample, readmePrinted } from './readme.js';

test('given the README, when its example is compiled and run, then it imports, unpacks and collects', async (t) => {
  const code = await readmeExample(await tempDir(t));
  const project = await consumer(t, { 'example.ts': code });
  assert.equal(await compile(project), '');
  const printed = await execute(project, 'example.js');
  readmePrinted(printed);
});

test('given the guide for embedders, when its pieces are compiled and run as one program, then each task does what it says', async (t) => {
  const guide = readFileSync(join(repository, 'docs', 'embedding.md'), 'utf8');
  const pieces = [...guide.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => code);
  assert.equal(pieces.length, 5);
  const root = join(await tempDir(t), 'root');
  const project = await consumer(t, {
    'guide.ts': pieces.join('\n').replace("'/var/lib/ebbtide'", JSON.stringify(root)),
  });
  assert.equal(await compile(project), '');
  assert.match(
    await execute(project, 'guide.js'),
    /^0 blobs removed\n\[ 'kept' \]\n1 blob removed, 0 sessions left\n\{"id":"held","createdAt":"20.*Z",.*\}\n$/,
  );
});

const program = `
import {
  type CollectionContext,
  type Collector,
  EbbtideError,
  isNotFound,
  newImageStore,
  openDB,
  ResourceMax,
  Scheduler,
  withId,
} from 'ebbtide';
import { createGraph, type Engine, metadataIndexer, openMemoryEngine, type SnapshotterBackend } from 'ebbtide/backend';
import { describeEngine } from 'ebbtide/testing';

class Nothing implements Collector {
  referenceLabel(): string {
    return 'nothing';
  }
  startCollection(): CollectionContext {
    return { all() {}, active() {}, leased() {}, remove() {}, cancel() {}, finish() {} };
  }
}

const engine: Engine = await openMemoryEngine({ indexer: metadataIndexer, graph: createGraph() });
const backends: Record<string, SnapshotterBackend> = {};
await engine.close();
export const suite: (name: string, open: Parameters<typeof describeEngine>[1]) => void = describeEngine;

await using db = await openDB({ root: process.argv[1] + '.root', engine: 'memory', snapshotters: ['native'] });
db.registerCollectibleResource(ResourceMax - 1, new Nothing());
await using scheduler = new Scheduler(db, { startupDelay: 0 });
const ctx = { namespace: 'default', signal: AbortSignal.timeout(60_000) };
const lease = await db.leases.create(ctx, withId('held'));
await db.leases.delete(ctx, lease);
const stats = await scheduler.scheduleAndWait(ctx.signal);
const error: unknown = await newImageStore(db).get(ctx, 'none').catch((e: unknown) => e);
console.log(JSON.stringify([Object.keys(backends).length === 0 && stats.elapsed() >= 0, isNotFound(error), error instanceof EbbtideError && error.kind]));
`;

test('given a program of a user, when it takes the package by its name, then types and values are there', async (t) => {
  const project = await consumer(t, { 'program.ts': program });
  assert.equal(await compile(project), '');
  assert.deepEqual(JSON.parse(await execute(project, 'program.js')), [true, true, 'NotFound']);
});

test('given a program that misuses the API, when it is compiled, then the types say so', async (t) => {
  const wrong = `
    import { openDB } from 'ebbtide';
    const db = await openDB({ root: 'x', snapshotters: ['btrfs'] });
    db.snapshotter('native').stat({ namespace: 'a' }, 'key');
  `;
  const said = await compile(await consumer(t, { 'wrong.ts': wrong }));
  assert.match(said, /wrong\.ts.*btrfs/);
  assert.match(said, /wrong\.ts.*possibly 'undefined'/);
});
