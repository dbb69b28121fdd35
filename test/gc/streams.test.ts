import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isKind } from '../../src/errors.js';
import { CollectorRegistry } from '../../src/gc/collectors.js';
import { Streams } from '../../src/gc/streams.js';
import { type Node, ResourceStream } from '../../src/gc/types.js';

const ctx = { namespace: 'ns1' };

function stream(log: string[], name: string): { close(): void } {
  return { close: () => void log.push(name) };
}

function sent(fn: (send: (node: Node) => void) => void): string[] {
  const keys: string[] = [];
  fn(({ type, namespace, key }) => {
    assert.equal(type, ResourceStream);
    keys.push(`${namespace}/${key}`);
  });
  return keys.sort();
}

test('given streams with and without a lease, when a collection asks, then each gets the namespace it belongs to', () => {
  const streams = new Streams();
  streams.register(ctx, 'free', stream([], 'free'));
  streams.register({ ...ctx, lease: 'l1' }, 'held', stream([], 'held'));
  const run = streams.startCollection();
  assert.deepEqual(
    sent((send) => run.all(send)),
    ['ns1/free', 'ns1/held'],
  );
  assert.deepEqual(
    sent((send) => run.active('ns1', send)),
    ['ns1/free'],
  );
  assert.deepEqual(
    sent((send) => run.leased('ns1', 'l1', send)),
    ['ns1/held'],
  );
  assert.deepEqual(
    sent((send) => run.leased('ns1', 'l2', send)),
    [],
  );
  assert.deepEqual(
    sent((send) => run.active('ns2', send)),
    [],
  );
  assert.equal(streams.referenceLabel(), 'stream');
});

test('given removed streams, when the run finishes, then they are closed; when it is cancelled, then not', async () => {
  const closed: string[] = [];
  const streams = new Streams();
  streams.register(ctx, 'a', stream(closed, 'a'));
  const node = { type: ResourceStream, namespace: 'ns1', key: 'a' };
  const failed = streams.startCollection();
  failed.remove(node);
  failed.cancel();
  assert.deepEqual(closed, []);
  const run = streams.startCollection();
  run.remove(node);
  await run.finish();
  assert.deepEqual(closed, ['a']);
  assert.throws(
    () => streams.get(ctx, 'a'),
    (e) => isKind(e, 'NotFound'),
  );
});

test('given a stream made again during a run, when the run finishes, then the new one is left alone', async () => {
  const closed: string[] = [];
  const streams = new Streams();
  streams.register(ctx, 'a', stream(closed, 'old'));
  const run = streams.startCollection();
  run.remove({ type: ResourceStream, namespace: 'ns1', key: 'a' });
  await streams.remove(ctx, 'a');
  streams.register(ctx, 'a', stream(closed, 'new'));
  await run.finish();
  assert.deepEqual(closed, ['old']);
  assert.ok(streams.get(ctx, 'a'));
});

test('given a name in use or none, when registered, then it is refused', () => {
  const streams = new Streams();
  streams.register(ctx, 'a', stream([], 'a'));
  assert.throws(
    () => streams.register(ctx, 'a', stream([], 'a')),
    (e) => isKind(e, 'AlreadyExists'),
  );
  assert.throws(
    () => streams.register(ctx, '', stream([], 'a')),
    (e) => isKind(e, 'InvalidArgument'),
  );
  assert.throws(
    () => streams.register({}, 'a', stream([], 'a')),
    (e) => isKind(e, 'FailedPrecondition'),
  );
});

test('[#204] given a registry, when types are out of range or taken, then they are refused', () => {
  const registry = new CollectorRegistry();
  const collector = new Streams();
  for (const type of [0, 1, 7, 0x1f, 0x20, 9.5, -1]) {
    assert.throws(
      () => registry.register(type, collector),
      (e) => isKind(e, 'InvalidArgument'),
      String(type),
    );
  }
  registry.register(8, collector);
  registry.register(0x1e, collector);
  registry.register(ResourceStream, collector);
  assert.throws(
    () => registry.register(ResourceStream, collector),
    (e) => isKind(e, 'AlreadyExists'),
  );
  const named = {
    ...collector,
    referenceLabel: () => 'content.x',
    startCollection: () => collector.startCollection(),
  };
  assert.throws(
    () => registry.register(11, named),
    (e) => isKind(e, 'InvalidArgument'),
  );
});
