/** What tracing channels publish, and the spans that are made of it by the SDK of OpenTelemetry. */
import assert from 'node:assert/strict';
import { subscribe, tracingChannel, unsubscribe } from 'node:diagnostics_channel';
import { test } from 'node:test';
import { context, trace } from '@opentelemetry/api';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base';
import { openDB } from '../../src/index.js';
import { traceWithOpenTelemetry } from '../../src/opentelemetry.js';
import { tempDir } from '../support/db.js';

const ctx = { namespace: 'test' };
const target = { mediaType: 'a/b', digest: `sha256:${'1'.repeat(64)}`, size: 1 };

test('given subscribers, when a store is used, then each transaction, collection and backend call has a beginning and an end', async (t) => {
  await using db = await openDB({ root: await tempDir(t, 'ebbtide-trace-'), snapshotters: ['native'] });
  const seen: string[] = [];
  const listeners = ['transaction', 'collection', 'backend'].flatMap((name) =>
    (['start', 'asyncEnd', 'error'] as const).map((stage) => {
      const listener = (message: unknown) => {
        const { operation, error } = message as { operation?: string; error?: Error };
        const failure = stage === 'error' ? error?.message : undefined;
        seen.push([name, stage, operation, failure].filter((part) => part !== undefined).join(' '));
      };
      return [`tracing:ebbtide:${name}:${stage}`, listener] as const;
    }),
  );
  for (const [channel, listener] of listeners) subscribe(channel, listener);
  t.after(() => {
    for (const [channel, listener] of listeners) unsubscribe(channel, listener);
  });

  const take = (): string[] => seen.splice(0);
  await db.images.create(ctx, { name: 'one', target, labels: {} });
  assert.deepEqual(take(), ['transaction start', 'transaction asyncEnd']);
  await assert.rejects(db.images.create(ctx, { name: 'one', target, labels: {} }));
  assert.deepEqual(take(), [
    'transaction start',
    'transaction error image "one" already exists',
    'transaction asyncEnd',
  ]);
  await db.snapshotter('native')!.prepare(ctx, 'work', '');
  const prepared = take();
  assert.deepEqual([prepared[0], prepared.at(-1)], ['transaction start', 'transaction asyncEnd']);
  assert.ok(prepared.includes('backend start prepare') && prepared.includes('backend asyncEnd prepare'));
  await db.snapshotter('native')!.remove(ctx, 'work');
  take();
  await db.garbageCollect();
  const collected = take();
  assert.deepEqual([collected[0], collected.at(-1)], ['collection start', 'collection asyncEnd']);
  assert.ok(collected.includes('backend start remove'), String(collected));
});

test('given no subscriber any more, then nothing is published, and results are the same', async (t) => {
  await using db = await openDB({ root: await tempDir(t, 'ebbtide-trace-'), snapshotters: ['native'] });
  const end = traceWithOpenTelemetry(new BasicTracerProvider());
  end();
  const channel = tracingChannel('ebbtide:transaction');
  assert.equal(channel.start.hasSubscribers, false);
  assert.equal((await db.images.create(ctx, { name: 'one', target, labels: {} })).name, 'one');
});

test('given an OpenTelemetry provider, when a blob is deleted and collected, then its spans are below one another and say what came out', async (t) => {
  const exporter = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  const end = traceWithOpenTelemetry(provider);
  t.after(end);
  await using db = await openDB({ root: await tempDir(t, 'ebbtide-trace-'), snapshotters: ['native'] });
  const writer = await db.content.writer(ctx, 'upload', {});
  await writer.write(Buffer.from('garbage'));
  await writer.commit(7, '', {});
  exporter.reset();

  await db.garbageCollect();
  const spans = exporter.getFinishedSpans();
  const collection = spans.find(({ name }) => name === 'ebbtide collection')!;
  assert.equal(collection.attributes['ebbtide.removed'], 1);
  assert.ok(Number(collection.attributes['ebbtide.bytes_freed']) > 0);
  const below = spans.filter((span) => ancestors(spans, span).includes(collection));
  assert.ok(
    below.some(({ name }) => name === 'ebbtide content deleteMany'),
    String(spans.map(({ name }) => name)),
  );

  exporter.reset();
  await assert.rejects(db.images.delete(ctx, 'none'));
  const [failed] = exporter.getFinishedSpans();
  assert.deepEqual([failed?.name, failed?.status.message], ['ebbtide transaction', 'NotFound']);

  end();
  exporter.reset();
  await db.images.create(ctx, { name: 'later', target, labels: {} });
  assert.deepEqual(exporter.getFinishedSpans(), []);
});

test('given a span of the caller, then ours are below it, also inside an update', async (t) => {
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable());
  const exporter = new InMemorySpanExporter();
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  const end = traceWithOpenTelemetry(provider);
  t.after(() => {
    end();
    context.disable();
  });
  await using db = await openDB({ root: await tempDir(t, 'ebbtide-trace-'), snapshotters: ['native'] });
  const tracer = provider.getTracer('caller');
  const inSpan = async (name: string, work: () => Promise<unknown>): Promise<void> => {
    const span = tracer.startSpan(name);
    await context.with(trace.setSpan(context.active(), span), work);
    span.end();
  };
  await inSpan('outer', () =>
    db.update((tx) =>
      inSpan('inner', () => db.snapshotter('native')!.prepare(db.withTransactionContext(ctx, tx), 'a', '')),
    ),
  );
  const spans = exporter.getFinishedSpans();
  const transaction = spans.find(({ name }) => name === 'ebbtide transaction')!;
  assert.deepEqual(
    ancestors(spans, transaction).map(({ name }) => name),
    ['outer'],
  );
  const prepare = spans.find(({ name }) => name === 'ebbtide native prepare')!;
  assert.deepEqual(
    ancestors(spans, prepare).map(({ name }) => name),
    ['inner', 'outer'],
  );
});

function ancestors(spans: readonly ReadableSpan[], span: ReadableSpan): ReadableSpan[] {
  const parent = spans.find((other) => other.spanContext().spanId === span.parentSpanContext?.spanId);
  return parent === undefined ? [] : [parent, ...ancestors(spans, parent)];
}
