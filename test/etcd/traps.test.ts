/** What goes wrong with etcd and its client in practice, one test each, on real servers. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { Engine, Key } from '../../src/engine/contract.js';
import type { EtcdConfig } from '../../src/engine/etcd/client/options.js';
import type { EtcdEngine } from '../../src/engine/etcd/engine.js';
import { Layout } from '../../src/engine/etcd/format/layout.js';
import { loadTree } from '../../src/engine/etcd/mirror/load.js';
import { openEtcdEngine } from '../../src/engine/etcd/open.js';
import { RawStore } from '../../src/engine/raw.js';
import { key } from '../../src/engine/schema/keys.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { EbbtideError } from '../../src/errors.js';
import { createGraph } from '../../src/graph/carriers.js';
import { tempDir } from '../support/db.js';
import { eventually } from './hosts.js';
import { cluster } from './one-member.js';
import { LoopbackProxy } from './proxy.js';
import { Cluster } from './servers.js';

const image = (name: string): Key => key('images', 'ns', name);

async function open(t: TestContext, etcd: EtcdConfig, mirrorDir?: string): Promise<EtcdEngine> {
  const engine = await openEtcdEngine({
    indexer: suiteIndexer,
    graph: createGraph(),
    etcd,
    ...(mirrorDir !== undefined && { mirrorDir }),
  });
  t.after(() => engine.close());
  return engine;
}

const all = (engine: Engine) => [...engine.scan('')];

/** What etcd has, as records: the truth that mirrors are compared with. */
async function inEtcd(of: Cluster, etcd: EtcdConfig): Promise<string[]> {
  const client = of.client(etcd.prefix);
  try {
    const { kvs } = await client.range('v1/', { end: 'v10' });
    const layout = new Layout('x');
    return kvs
      .map((kv) => layout.parse(kv.key))
      .flatMap((place) => (place?.is === 'record' ? [place.key] : []))
      .sort();
  } finally {
    client.close();
  }
}

test('given responses larger than 4 MiB, when a mirror is loaded or resumed, then they arrive', async (t) => {
  const etcd = cluster.config();
  const dir = join(await tempDir(t), 'mirror');
  const away = await open(t, { ...etcd, hostId: 'away' }, dir);
  await away.update((tx) => tx.put(image('first'), 'v'));
  await away.close();
  const writer = await open(t, { ...etcd, hostId: 'writer' });
  for (let i = 0; i < 12; i++) {
    await writer.update((tx) => {
      for (let j = 0; j < 10; j++) tx.put(image(`${i}-${j}`), { text: 'x'.repeat(80_000) });
    });
  }
  const loaded = await open(t, { ...etcd, hostId: 'loaded' });
  assert.deepEqual(all(loaded), all(writer));
  const resumed = await open(t, { ...etcd, hostId: 'away' }, dir);
  await resumed.confirm();
  assert.deepEqual(all(resumed), all(writer));
});

test('given shards and pages of any size, when a tree is loaded, then every key comes once', async (t) => {
  const etcd = cluster.config();
  const writer = await open(t, etcd);
  await writer.update((tx) => {
    for (let i = 0; i < 400; i++)
      tx.put(image(`${['sha256:', 'x/', '', 'é'][i % 4]}${(i * 7919).toString(16)}`), 'v');
  });
  await writer.update((tx) => {
    for (const ns of ['ns', 'ns-2', 'namespaces']) {
      tx.put(key('namespaces', ns), {});
      for (let i = 0; i < 100; i++) {
        const algorithm = i % 20 === 0 ? 'sha512' : 'sha256';
        const digest = createHash(algorithm).update(`${ns} ${i}`).digest('hex');
        tx.put(key('blobs', ns, `${algorithm}:${digest}`), { size: i });
        if (i % 3 === 0) tx.put(key('snapshots', ns, `s${i % 2}`, `k${i}`), 'v');
      }
      tx.put(key('unheard-of', ns, 'x'), 'v');
    }
  });
  const client = cluster.client(etcd.prefix);
  t.after(() => client.close());
  const { kvs, revision } = await client.range('', { end: '', keysOnly: true });
  for (const [pageSize, shardMax] of [
    [10_000, 100_000],
    [7, 50],
    [1000, 5],
  ]) {
    const seen: string[] = [];
    await loadTree(client, revision, (page) => void seen.push(...page.map((kv) => kv.key)), {
      pageSize: pageSize!,
      shardMax: shardMax!,
    });
    assert.deepEqual(seen.sort(), kvs.map((kv) => kv.key).sort());
  }
});

test('[#265] given a transaction of 300 writes, when others look, then they see all of it or nothing', async (t) => {
  const etcd = cluster.config();
  const writer = await open(t, { ...etcd, hostId: 'writer' });
  const reader = await open(t, { ...etcd, hostId: 'reader' });
  const names = Array.from({ length: 300 }, (_, i) => image(`n${i}`));
  const seen = new Set<string>();
  let stop = false;
  const looking = (async () => {
    while (!stop) {
      const values = names.map((name) => JSON.stringify(reader.get(name)));
      seen.add([...new Set(values)].join());
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  const small = (async () => {
    for (let i = 0; !stop; i++) await reader.update((tx) => tx.put(image('small'), { size: i }));
  })();
  for (let round = 1; round <= 5; round++) {
    await writer.update((tx) => {
      for (const name of names) tx.put(name, { size: round });
    });
    await reader.confirm();
    assert.deepEqual(reader.get(names[299]!), { size: round });
  }
  stop = true;
  await Promise.all([looking, small]);
  for (const one of seen) assert.match(one, /^(?:|\{"size":\d\})$/);
  assert.ok(seen.size >= 3, `${seen.size} states seen`);
  await writer.confirm();
  assert.deepEqual(all(reader), all(writer));
  const client = cluster.client(etcd.prefix);
  t.after(() => client.close());
  assert.equal((await client.range('sys/unit/', { end: 'sys/unit0' })).count, 0);
});

test('given a host that dies with a decided unit, when others commit, then the unit is finished', async (t) => {
  const etcd = cluster.config();
  const other = await open(t, { ...etcd, hostId: 'other' });
  await other.update((tx) => tx.put(image('old'), 'v'));
  // What a host leaves that dies right after the deciding transaction.
  const client = cluster.client(etcd.prefix);
  t.after(() => client.close());
  const lines = [{ p: 'v1/ns/images/new', v: '{"size":1}' }, { d: 'v1/ns/images/old' }];
  await client.txn(
    [],
    [{ put: 'sys/unit/dead-1/000000', value: lines.map((line) => JSON.stringify(line)).join('\n') }],
  );
  await client.txn(
    [],
    [
      { put: 'sys/gate', value: JSON.stringify({ id: 'dead-1', state: 'flipped', chunks: 1 }) },
      { put: 'sys/commit/dead/0', value: '{"id":"dead-1"}' },
    ],
  );
  await other.confirm();
  assert.deepEqual(all(other), [[image('new'), { size: 1 }]], 'decided is decided');
  const late = await open(t, { ...etcd, hostId: 'late' });
  assert.deepEqual(all(late), all(other), 'also for a mirror that is loaded meanwhile');
  await other.update((tx) => tx.put(image('more'), 'v'));
  assert.deepEqual(await inEtcd(cluster, etcd), [image('more'), image('new')].sort());
  assert.equal((await client.range('sys/gate')).count, 0);
  assert.equal((await client.range('sys/unit/', { end: 'sys/unit0' })).count, 0);
});

test('given a unit that was never decided, when its host is gone, then nothing of it is seen and it is cleared', async (t) => {
  const etcd = cluster.config();
  const client = cluster.client(etcd.prefix);
  t.after(() => client.close());
  await client.txn(
    [],
    [{ put: 'sys/unit/dead-1/000000', value: JSON.stringify({ p: 'v1/ns/images/x', v: '{}' }) }],
  );
  const engine = await open(t, etcd);
  assert.deepEqual(all(engine), []);
  assert.equal((await client.range('sys/unit/', { end: 'sys/unit0' })).count, 0);
});

test('given a host that is taken for dead while it stages a unit, when what it staged is gone, then it stages again', async (t) => {
  const etcd = cluster.config();
  const other = await open(t, { ...etcd, hostId: 'b' });
  const host = await open(t, { ...etcd, hostId: 'a' });
  const client = cluster.client(etcd.prefix);
  t.after(() => client.close());
  const txn = host.client.txn.bind(host.client);
  let dropped = 0;
  // As another host drops it that looked at the gate just before.
  t.mock.method(host.client, 'txn', async (...args: Parameters<typeof txn>) => {
    const result = await txn(...args);
    if (args[1].some((op) => 'put' in op && op.put === 'sys/gate') && dropped++ === 0)
      await client.txn([], [{ del: 'sys/unit/', end: 'sys/unit0' }]);
    return result;
  });
  await host.update((tx) => {
    for (let i = 0; i < 200; i++) tx.put(image(`again${i}`), { size: i });
  });
  // The first unit was not decided and was taken back, the second was.
  assert.equal(dropped, 4);
  await other.confirm();
  assert.equal(all(other).length, 200);
});

test('given a host that does not see its own gate, when it writes a unit, then it is refused and others go on', {
  timeout: 60_000,
}, async (t) => {
  const proxy = await LoopbackProxy.start(cluster.members[0]!.url);
  t.after(() => proxy.close());
  const etcd = cluster.config();
  const limits = { requestTimeoutMs: 300, operationTimeoutMs: 5_000 };
  const host = await open(t, { ...etcd, ...limits, hosts: [proxy.url], hostId: 'a' });
  const other = await open(t, { ...etcd, hostId: 'b' });
  const watch = t.mock.method(host.client, 'watchStream', () => Promise.reject(new Error('no watch')));
  proxy.reset();
  const unit = host.update((tx) => {
    for (let i = 0; i < 200; i++) tx.put(image(`blind${i}`), { size: i });
  });
  const outcome = assert.rejects(unit, assertKind('Unavailable'));
  await eventually('the gate is closed', async () => (await other.client.range('sys/gate')).count > 0);
  await other.update((tx) => tx.put(image('other'), { size: 1 }));
  await outcome;
  watch.mock.restore();
  await host.update((tx) => tx.put(image('later'), { size: 1 }));
  await other.confirm();
  assert.deepEqual(
    all(other).map(([key]) => key),
    [image('later'), image('other')],
  );
});

test('given more than 1.5 MiB, when it is a transaction, then it is whole; when it is one value, then it is refused', async (t) => {
  const etcd = cluster.config();
  const engine = await open(t, etcd);
  await engine.update((tx) => {
    for (let i = 0; i < 40; i++) tx.put(image(`big${i}`), { text: 'y'.repeat(100_000) });
  });
  assert.equal(all(engine).length, 40);
  const raw = new RawStore(engine);
  await assert.rejects(raw.put('too big', 'z'.repeat(1_600_000)), assertKind('InvalidArgument'));
  await assert.rejects(
    engine.update((tx) => tx.put(image('huge'), { text: 'z'.repeat(1_700_000) })),
    assertKind('InvalidArgument'),
  );
  assert.equal(engine.has(image('huge')), false);
  await engine.update((tx) => tx.put(image('after'), 'v'));
});

test('given a server that hangs, when something is asked of it, then it fails in time, and works again later', async (t) => {
  const own = await Cluster.start();
  const engine = await open(t, own.config({ requestTimeoutMs: 300, operationTimeoutMs: 1500 }));
  t.after(() => own.stop());
  await engine.update((tx) => tx.put(image('a'), { size: 1 }));
  await own.members[0]!.pause();
  try {
    await assert.rejects(
      engine.view((tx) => tx.get(image('a'))),
      assertKind('Unavailable'),
    );
    await assert.rejects(
      engine.update((tx) => tx.put(image('b'), { size: 1 })),
      assertKind('Unavailable'),
    );
    assert.deepEqual(engine.get(image('a')), { size: 1 }, 'the mirror itself can still be read');
  } finally {
    own.members[0]!.signal('SIGCONT');
  }
  await eventually('etcd responds', () =>
    engine.confirm().then(
      () => true,
      () => false,
    ),
  );
  await engine.update((tx) => tx.put(image('c'), { size: 1 }));
  assert.ok(engine.has(image('c')));
});

test('given three members, when one hangs, then operations go on with another', async (t) => {
  const own = await Cluster.start(3);
  const engine = await open(t, own.config({ requestTimeoutMs: 500 }));
  t.after(() => own.stop());
  for (const [i, member] of own.members.entries()) {
    await member.pause();
    await engine.update((tx) => tx.put(image(`n${i}`), { size: i }));
    assert.deepEqual(await engine.view((tx) => tx.get(image(`n${i}`))), { size: i });
    member.signal('SIGCONT');
    await own.ready();
  }
  assert.equal(all(engine).length, 3);
});

test('given three members, when the one that renews a session hangs, then another one does and no lock is lost', async (t) => {
  const own = await Cluster.start(3);
  const ttl = 3;
  const leader = await own.leader();
  const hangs = own.members.find((member) => member !== leader)!;
  // Asked first: the session is renewed through it.
  const hosts = [hangs.url, ...own.urls.filter((url) => url !== hangs.url)];
  const engine = await open(t, own.config({ hosts, requestTimeoutMs: 500, sessionTtlSeconds: ttl }));
  t.after(() => own.stop());
  const unlock = await engine.locks.tryLock('held');
  await hangs.pause();
  // Nothing is asked of etcd meanwhile: only the session can notice.
  await new Promise((resolve) => setTimeout(resolve, 2.5 * ttl * 1000));
  await unlock();
  hangs.signal('SIGCONT');
});

test('given three members, when one is replaced by a new one, then hosts go on', async (t) => {
  const own = await Cluster.start(3);
  const engine = await open(t, own.config({ requestTimeoutMs: 500 }));
  t.after(() => own.stop());
  await engine.update((tx) => tx.put(image('before'), 'v'));
  const gone = own.members[0]!;
  const id = /^([0-9a-f]+), \w+, m0,/m.exec(own.etcdctl('member', 'list'))?.[1];
  assert.ok(id);
  await gone.kill();
  await eventually('the member goes', () => {
    try {
      own.etcdctlOf(own.members[1]!, 'member', 'remove', id);
      return true;
    } catch {
      return false;
    }
  });
  await engine.update((tx) => tx.put(image('between'), 'v'));
  await own.join();
  await engine.update((tx) => tx.put(image('after'), 'v'));
  assert.equal((await engine.view((tx) => [...tx.scan('images')])).length, 3);
});

test('given a host whose watch is older than a compaction, when it is connected again, then it loads everything', async (t) => {
  const proxy = await LoopbackProxy.start(cluster.members[0]!.url);
  const etcd = cluster.config();
  const warnings: string[] = [];
  const cut = await openEtcdEngine({
    indexer: suiteIndexer,
    graph: createGraph(),
    etcd: { ...etcd, hosts: proxy.url, hostId: 'cut', requestTimeoutMs: 500 },
    warn: (message) => warnings.push(message),
  });
  t.after(() => cut.close().finally(() => proxy.close()));
  const other = await open(t, { ...etcd, hostId: 'other' });
  await other.update((tx) => {
    for (let i = 0; i < 50; i++) tx.put(image(`n${i}`), { size: i, refs: { label: image(`n${i + 1}`) } });
    tx.link(image('n1'), 'holds', image('n2'));
    tx.link(key('backendnames', 's', 'x'), 'named', image('n2'));
  });
  await cut.confirm();
  proxy.cut();
  await other.update((tx) => {
    for (let i = 0; i < 50; i += 2) tx.delete(image(`n${i}`));
    tx.put(image('n1'), { size: 100 });
    tx.unlink(image('n1'), 'holds', image('n2'));
    tx.unlink(key('backendnames', 's', 'x'), 'named', image('n2'));
    tx.link(image('n1'), 'holds', image('n3'));
  });
  const client = cluster.client();
  t.after(() => client.close());
  const { revision } = await client.range('any');
  cluster.etcdctl('compaction', String(revision));
  proxy.heal();
  await eventually('the cut host is current', () =>
    cut.confirm().then(
      () => true,
      () => false,
    ),
  );
  assert.deepEqual(all(cut), all(other));
  assert.deepEqual([...cut.links(image('n1'), 'holds')], [image('n3')]);
  assert.deepEqual([...cut.links(key('backendnames', 's', 'x'), 'named')], []);
  assert.deepEqual(cut.verifyGraph(), []);
  assert.ok(
    warnings.some((warning) => warning.includes('compacted')),
    warnings.join(),
  );
  await cut.update((tx) => tx.put(image('goes on'), 'v'));
  await other.confirm();
  assert.deepEqual(all(cut), all(other));
});

test('given a mirror on disk that is older than a compaction, when its host starts, then it loads everything', async (t) => {
  const etcd = cluster.config();
  const dir = join(await tempDir(t), 'mirror');
  const first = await open(t, { ...etcd, hostId: 'a' }, dir);
  await first.update((tx) => {
    tx.put(image('stays'), { size: 1 });
    tx.put(image('goes'), { size: 1 });
  });
  await first.close();
  const other = await open(t, { ...etcd, hostId: 'b' });
  await other.update((tx) => tx.delete(image('goes')));
  await other.update((tx) => tx.put(image('comes'), { size: 1 }));
  const client = cluster.client();
  t.after(() => client.close());
  cluster.etcdctl('compaction', String((await client.range('any')).revision));
  const again = await open(t, { ...etcd, hostId: 'a' }, dir);
  await again.confirm();
  assert.deepEqual(all(again), all(other));
  assert.deepEqual(again.verifyGraph(), []);
});

test('given a commit whose response is lost, when it is found out, then it has happened exactly once', async (t) => {
  const proxy = await LoopbackProxy.start(cluster.members[0]!.url);
  const etcd = cluster.config();
  const host = await open(t, { ...etcd, hosts: proxy.url, hostId: 'a', requestTimeoutMs: 400 });
  const other = await open(t, { ...etcd, hostId: 'b' });
  t.after(() => proxy.close());
  await host.update((tx) => tx.put(image('n'), { size: 0 }));
  const value = (engine: Engine): number => (engine.get(image('n')) as { size: number }).size;
  for (const lose of ['responses', 'requests'] as const) {
    for (let round = 0; round < 4; round++) {
      const before = value(host);
      if (lose === 'responses') proxy.holdResponses(true);
      else proxy.holdRequests(true);
      const undone: string[] = [];
      const update = host.update(async (tx) => {
        await tx.once(
          'effect',
          async () => 'made',
          async () => void undone.push('undone'),
        );
        tx.put(image('n'), { size: (tx.get(image('n')) as { size: number }).size + 1 });
      });
      await new Promise((resolve) => setTimeout(resolve, round % 2 === 0 ? 150 : 600));
      proxy.heal();
      if (round % 2 === 0) proxy.reset();
      await update;
      await other.confirm();
      assert.equal(value(host), before + 1, `${lose}, round ${round}`);
      assert.equal(value(other), before + 1);
      assert.deepEqual(undone, []);
    }
  }
});

test('given a blind write that is delayed on its way, when it was given up and written over, then it comes to nothing', async (t) => {
  const proxy = await LoopbackProxy.start(cluster.members[0]!.url);
  const etcd = cluster.config();
  // Two ways to etcd: the request hangs in one of them, the host finds out by the other.
  const host = await open(t, {
    ...etcd,
    hosts: [proxy.url, ...cluster.urls],
    hostId: 'a',
    requestTimeoutMs: 300,
  });
  const other = await open(t, { ...etcd, hostId: 'b' });
  t.after(() => proxy.close());
  await host.update((tx) => tx.put(image('x'), { size: 0 }));
  proxy.holdRequests(true);
  await host.update((tx) => tx.put(image('x'), { size: 1 }));
  await other.update((tx) => tx.put(image('x'), { size: 2 }));
  proxy.heal();
  await new Promise((resolve) => setTimeout(resolve, 300));
  await host.confirm();
  await other.confirm();
  assert.deepEqual(host.get(image('x')), { size: 2 });
  assert.deepEqual(other.get(image('x')), { size: 2 });
});

test('given an etcd that is out of space, when written to, then it says so and reads go on, and later all works', async (t) => {
  const own = await Cluster.start(1, { extra: ['--quota-backend-bytes', String(12 * 1024 * 1024)] });
  const engine = await open(t, own.config());
  t.after(() => own.stop());
  await engine.update((tx) => tx.put(image('a'), { size: 1 }));
  let failure: unknown;
  for (let i = 0; i < 60 && failure === undefined; i++) {
    await engine
      .update((tx) => tx.put(image('fill'), { text: String(i).repeat(400_000) }))
      .catch((error: unknown) => {
        failure = error;
      });
  }
  assert.ok(failure instanceof EbbtideError);
  assert.equal(failure.kind, 'Unavailable');
  assert.match(failure.message, /out of space/);
  assert.match(failure.remedy ?? '', /defragment/);
  assert.deepEqual(await engine.view((tx) => tx.get(image('a'))), { size: 1 });
  const client = own.client();
  t.after(() => client.close());
  own.etcdctl('compaction', String((await client.range('any')).revision));
  own.etcdctl('defrag');
  own.etcdctl('alarm', 'disarm');
  await engine.update((tx) => tx.put(image('b'), { size: 1 }));
  assert.ok(engine.has(image('b')));
});

test('given no listener, when an engine is opened, then it fails within the dial timeout and holds nothing', async () => {
  const started = performance.now();
  await assert.rejects(
    openEtcdEngine({
      indexer: suiteIndexer,
      graph: createGraph(),
      etcd: { hosts: 'http://127.0.0.1:1', dialTimeoutMs: 500 },
    }),
    assertKind('Unavailable'),
  );
  assert.ok(performance.now() - started < 20_000);
});

test('given two hosts of one name, when the second has come, then the first gets an error and changes nothing more', async (t) => {
  const etcd = cluster.config();
  const first = await open(t, etcd);
  await first.update((tx) => tx.put(image('a'), { size: 1 }));
  const second = await open(t, etcd);
  await second.update((tx) => tx.put(image('b'), { size: 1 }));
  await assert.rejects(
    first.update((tx) => tx.put(image('c'), { size: 1 })),
    /another host has taken the name/,
  );
  await second.update((tx) => tx.put(image('d'), { size: 1 }));
  await second.confirm();
  assert.deepEqual(
    all(second).map(([k]) => k),
    [image('a'), image('b'), image('d')],
  );
});
