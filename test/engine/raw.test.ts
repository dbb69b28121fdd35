/** Raw keys: reads, writes, transactions, locks, with the semantics of an etcd client. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { openMemoryEngine } from '../../src/engine/memory/engine.js';
import { RawStore } from '../../src/engine/raw.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { notFound } from '../../src/errors.js';
import { createGraph } from '../../src/graph/carriers.js';
import { compareUtf8 } from '../../src/model/utf8.js';

async function openRaw(t: TestContext) {
  const engine = await openMemoryEngine({ indexer: suiteIndexer, graph: createGraph() });
  t.after(() => engine.close());
  return { engine, raw: new RawStore(engine) };
}

const entries = (map: Map<string, string>): [string, string][] => [...map];

test('given raw keys, when one is missing or a prefix is read, then only what is there comes [#251]', async (t) => {
  const { raw } = await openRaw(t);
  assert.deepEqual(await raw.get('missing'), new Map());
  await raw.put('v1/ns1/images/a', '1');
  await raw.put('v1/ns1/imagesx/b', '2');
  await raw.put('v1/ns1/images/c', '3');
  assert.deepEqual(entries(await raw.get('v1/ns1/images/', { prefix: true })), [
    ['v1/ns1/images/a', '1'],
    ['v1/ns1/images/c', '3'],
  ]);
  assert.equal((await raw.get('v1/ns1/images', { prefix: true })).size, 3);
  assert.equal((await raw.get('', { prefix: true })).size, 3);
});

test('given an empty value, when put, then it is stored and read [#252]', async (t) => {
  const { raw } = await openRaw(t);
  await raw.put('k', '');
  assert.deepEqual(entries(await raw.get('k')), [['k', '']]);
  await raw.put('k', 'v');
  assert.deepEqual(entries(await raw.get('k')), [['k', 'v']]);
});

test('given a raw transaction, when it fails or succeeds, then nothing or all of it is visible [#253]', async (t) => {
  const { raw } = await openRaw(t);
  await assert.rejects(
    raw.eUpdate(async (transactor) => {
      await transactor.put('a', '1');
      throw notFound('on purpose');
    }),
    assertKind('NotFound'),
  );
  assert.equal((await raw.get('', { prefix: true })).size, 0);
  const result = await raw.eUpdate(async (transactor) => {
    await transactor.put('a', '1');
    await transactor.put('b', '2');
    assert.equal(await transactor.del('a'), 1);
    assert.deepEqual(entries(await transactor.get('', { prefix: true })), [['b', '2']]);
    assert.deepEqual(await raw.get('', { prefix: true }), new Map());
    return 7;
  });
  assert.equal(result, 7);
  assert.deepEqual(entries(await raw.get('', { prefix: true })), [['b', '2']]);
});

test('given two that increment one key 50 times each, when both are done, then it is 100 [#254]', async (t) => {
  const { raw } = await openRaw(t);
  const increment = async () => {
    for (let i = 0; i < 50; i++) {
      await raw.eUpdate(async (transactor) => {
        const value = Number((await transactor.get('n')).get('n') ?? '0');
        await new Promise(setImmediate);
        await transactor.put('n', String(value + 1));
      });
    }
  };
  await Promise.all([increment(), increment()]);
  assert.deepEqual(entries(await raw.get('n')), [['n', '100']]);
});

test('given names of every kind, when listed, then they survive and come in order [#255]', async (t) => {
  const { raw } = await openRaw(t);
  const names = ['a/b', 'a%2Fb', 'a b', '豆', '\u{1f600}', '\uff5e', 'z', '%', '/'];
  for (const name of names) await raw.put(name, name);
  const listed = entries(await raw.get('', { prefix: true }));
  assert.deepEqual(
    listed,
    [...names].sort(compareUtf8).map((name) => [name, name]),
  );
});

test('given options, when read with them, then they mean what they mean in etcd', async (t) => {
  const { engine, raw } = await openRaw(t);
  for (const name of ['c', 'a', 'd', 'b', 'c']) await raw.put(name, `v${name}`);
  const names = async (key: string, options: Parameters<typeof raw.get>[1]) => [
    ...(await raw.get(key, options)).keys(),
  ];
  assert.deepEqual(await names('b', { rangeEnd: 'd' }), ['b', 'c']);
  assert.deepEqual(await names('bb', { rangeEnd: 'd' }), ['c']);
  assert.deepEqual(await names('d', { rangeEnd: 'b' }), []);
  assert.deepEqual(await names('b', { fromKey: true }), ['b', 'c', 'd']);
  assert.deepEqual(await names('', { prefix: true, limit: 2 }), ['a', 'b']);
  assert.deepEqual(await names('', { prefix: true, limit: 0 }), ['a', 'b', 'c', 'd']);
  assert.deepEqual(await names('', { prefix: true, sort: { by: 'key', order: 'desc' }, limit: 2 }), [
    'd',
    'c',
  ]);
  assert.deepEqual(await names('', { prefix: true, sort: { by: 'mod' } }), ['a', 'd', 'b', 'c']);
  assert.deepEqual(await names('', { prefix: true, sort: { by: 'create' } }), ['c', 'a', 'd', 'b']);
  assert.deepEqual(await names('', { prefix: true, sort: { by: 'version', order: 'desc' }, limit: 1 }), [
    'c',
  ]);
  assert.deepEqual(await names('', { prefix: true, sort: { by: 'value', order: 'desc' } }), [
    'd',
    'c',
    'b',
    'a',
  ]);
  assert.deepEqual(entries(await raw.get('', { prefix: true, keysOnly: true, limit: 1 })), [['a', '']]);
  assert.deepEqual(await raw.get('', { prefix: true, countOnly: true }), new Map());
  assert.deepEqual(await names('a', { rev: engine.revision, serializable: true }), ['a']);
  await assert.rejects(raw.get('a', { rev: 1 }), assertKind('FailedPrecondition'));
  await assert.rejects(raw.get(''), assertKind('InvalidArgument'));
  await assert.rejects(raw.get('a', { limit: -1 }), assertKind('InvalidArgument'));
  await assert.rejects(raw.put('', 'v'), assertKind('InvalidArgument'));
  await assert.rejects(raw.put('a', 'x'.repeat(1_600_000)), assertKind('InvalidArgument'));
  await assert.rejects(raw.put('a', 'v', { lease: 17 }), assertKind('NotFound'));
  assert.equal(await raw.del('missing'), 0);
  assert.equal(await raw.del('', { prefix: true }), 4);
});

test('given locks taken in a raw transaction, when it ends without unlocking, then they are free [#256]', async (t) => {
  const { raw } = await openRaw(t);
  let late: Promise<unknown> | undefined;
  await raw.eUpdate(async (transactor) => {
    await transactor.lock('a');
    await transactor.rLock('b');
    const unlock = await transactor.tryLock('c');
    await assert.rejects(raw.tryLock('a'), assertKind('Unavailable'));
    await unlock();
    await assert.rejects(unlock(), assertKind('FailedPrecondition'));
    await (await raw.tryLock('c'))();
    late = new Promise(setImmediate).then(() => transactor.lock('d'));
    late.catch(() => undefined);
  });
  for (const name of ['a', 'b']) await (await raw.tryLock(name))();
  await assert.rejects(late!, assertKind('FailedPrecondition'));
});

test('given a raw transaction that holds a lock, when it runs again after a conflict, then it does not wait for itself', async (t) => {
  const { raw } = await openRaw(t);
  let runs = 0;
  await raw.eUpdate(async (transactor) => {
    runs++;
    await transactor.lock('a');
    await transactor.get('n');
    if (runs === 1) await raw.put('n', '1');
    await transactor.put('m', '1');
  });
  assert.equal(runs, 2);
  await (await raw.tryLock('a'))();
});
