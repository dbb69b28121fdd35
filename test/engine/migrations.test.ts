/** Schema revisions: of the old logical tree, and of our own store. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { openMemoryEngine } from '../../src/engine/memory/engine.js';
import { metaKey, Relation, snapshotKey } from '../../src/engine/schema/keys.js';
import { migrateTree, revisionOf, SCHEMA_REVISION, type Tree } from '../../src/engine/schema/legacy.js';
import { initSchema } from '../../src/engine/schema/migrations.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { createGraph } from '../../src/graph/carriers.js';
import { encodeVarint } from '../../src/model/wire.js';
import { tempDir } from './temp.js';

interface Plain {
  readonly [name: string]: Plain | string | Uint8Array;
}

/** A tree from nested objects; texts stand for their bytes. */
function tree(plain: Plain): Tree {
  const made: Tree = new Map();
  for (const [name, value] of Object.entries(plain)) {
    if (typeof value === 'string') made.set(name, new Uint8Array(Buffer.from(value)));
    else made.set(name, value instanceof Uint8Array ? value : tree(value));
  }
  return made;
}

const plain = (from: Tree): Plain =>
  Object.fromEntries(
    [...from].map(([name, value]) => [
      name,
      value instanceof Map ? plain(value) : Buffer.from(value).toString(),
    ]),
  );

const version = (revision: number): Uint8Array => encodeVarint(revision);
const current = Buffer.from(version(SCHEMA_REVISION)).toString();

test('given no tree, when migrated, then it is new at revision 4 and no migration ran [#235]', () => {
  const { tree: made, ran } = migrateTree(new Map());
  assert.deepEqual(ran, []);
  assert.deepEqual(plain(made), { v1: { version: current } });
  assert.deepEqual(migrateTree(made), { tree: made, ran: [] });
});

test('given trees of several revisions, when migrated, then the later migrations run [#236]', () => {
  const cases: [Plain, number[]][] = [
    [{ v1: {} }, [1, 2, 3, 4]],
    [{ v1: { version: new Uint8Array([0xff]) } }, [1, 2, 3, 4]],
    [{ v1: { version: version(1) } }, [2, 3, 4]],
    [{ v1: { version: version(3) } }, [4]],
    [{ v1: { version: version(4) } }, []],
    [{ v1: { version: version(9) }, other: { kept: 'x' } }, []],
  ];
  for (const [given, expected] of cases) {
    const before = tree(given);
    const { tree: after, ran } = migrateTree(before);
    assert.deepEqual(ran, expected);
    if (ran.length === 0) assert.deepEqual(after, before);
    else assert.equal(revisionOf(after.get('v1') as Tree), 4);
  }
});

test('given snapshots with parents, when migrated from 0, then parents know their children [#237]', () => {
  const given = tree({
    v1: {
      ns: {
        snapshots: {
          native: {
            k1: { name: 'ns/1/k1' },
            k2: { name: 'ns/2/k2', parent: 'k1' },
            k2a: { name: 'ns/3/k2a', parent: 'k1' },
            a1: { name: 'ns/4/a1', parent: 'k2' },
            orphan: { name: 'ns/5/orphan', parent: 'missing' },
            none: { name: 'ns/6/none', parent: '' },
          },
        },
      },
    },
  });
  const { tree: after } = migrateTree(given);
  assert.deepEqual(plain(after), {
    v1: {
      version: current,
      ns: {
        snapshots: {
          native: {
            k1: { name: 'ns/1/k1', children: { k2: '', k2a: '' } },
            k2: { name: 'ns/2/k2', parent: 'k1', children: { a1: '' } },
            k2a: { name: 'ns/3/k2a', parent: 'k1' },
            a1: { name: 'ns/4/a1', parent: 'k2' },
            orphan: { name: 'ns/5/orphan', parent: 'missing' },
            none: { name: 'ns/6/none', parent: '' },
          },
        },
      },
    },
  });
});

test('given flat ingests, when migrated from 1, then each is a record and the old map is gone [#238]', () => {
  const long = 'r'.repeat(270);
  const given = tree({
    v1: {
      version: version(1),
      ns: {
        content: { ingest: { k1: 'ns/1/k1', [long]: 'ns/2/long', k3: `ns/3/${long}`, k4: '' }, blob: {} },
      },
      untouched: { content: { blob: {} } },
    },
  });
  const { tree: after } = migrateTree(given);
  assert.deepEqual(plain(after), {
    v1: {
      version: current,
      ns: {
        content: {
          ingests: {
            k1: { ref: 'ns/1/k1' },
            [long]: { ref: 'ns/2/long' },
            k3: { ref: `ns/3/${long}` },
            k4: { ref: '' },
          },
          blob: {},
        },
      },
      untouched: { content: { blob: {} } },
    },
  });
});

test('given sandboxes outside v1, when migrated from 3, then they move and all other levels go [#239]', () => {
  const given = tree({
    v1: { version: version(3), ns: { images: {} }, sandboxes: { odd: { kept: 'as it is' } } },
    ns: {
      sandboxes: {
        s1: { createdat: 'time', sandboxer: 'x', labels: { a: 'b' }, runtime: { name: 'runc' } },
        s2: {},
      },
    },
    fresh: { sandboxes: { s3: { spec: 'any' } } },
    'no sandboxes': { other: { x: 'y' } },
    scalar: 'text',
  });
  const { tree: after, ran } = migrateTree(given);
  assert.deepEqual(ran, [4]);
  assert.deepEqual(plain(after), {
    v1: {
      version: current,
      ns: {
        images: {},
        sandboxes: {
          s1: { createdat: 'time', sandboxer: 'x', labels: { a: 'b' }, runtime: { name: 'runc' } },
          s2: {},
        },
      },
      fresh: { sandboxes: { s3: { spec: 'any' } } },
      sandboxes: { odd: { kept: 'as it is' } },
    },
  });
});

test('given a tree that cannot be migrated, when tried, then it names the revision and nothing changed [#240]', () => {
  const given = tree({
    v1: { version: version(0), ns: { snapshots: { native: { k1: {}, k2: { parent: 'k1' } } } } },
    ns: { sandboxes: { s1: { runtime: { options: { deeper: 'than allowed' } } } } },
  });
  const before = structuredClone(given);
  assert.throws(() => migrateTree(given), /v1\.4/);
  assert.deepEqual(given, before);
});

const openMemory = () => openMemoryEngine({ indexer: suiteIndexer, graph: createGraph() });

test('given an empty store, when initialised twice, then it has revision 4 and the second wrote nothing [#235]', async () => {
  await using engine = await openMemory();
  await initSchema(engine);
  assert.deepEqual(engine.get(metaKey('version')), { version: 4 });
  const { revision } = engine;
  await initSchema(engine);
  assert.equal(engine.revision, revision);
});

test('given stores of other revisions, when initialised, then older ones migrate and newer ones stay [#236]', async () => {
  for (const stored of [undefined, 0, 3, 9]) {
    await using engine = await openMemory();
    const [parent, child] = ['p', 'c'].map((name) => snapshotKey('ns', 'native', name)) as [string, string];
    await engine.update((tx) => {
      tx.put(parent, { name: 'ns/1/p' });
      tx.put(child, { name: 'ns/2/c', parent: 'p' });
      tx.put(snapshotKey('ns', 'native', 'orphan'), { name: 'ns/3/o', parent: 'missing' });
      if (stored !== undefined) tx.put(metaKey('version'), { version: stored });
    });
    const before = engine.revision;
    await initSchema(engine);
    assert.deepEqual(engine.get(metaKey('version')), { version: stored === 9 ? 9 : 4 });
    assert.deepEqual([...engine.links(parent, Relation.children)], (stored ?? 0) < 1 ? [child] : []);
    if (stored === 9) assert.equal(engine.revision, before);
  }
});

test('given records of an older revision, when the store is only read, then FailedPrecondition says so; an empty one is read', async (t) => {
  const open = async (dir: string, readOnly = false) => {
    const engine = await openLmdbEngine(dir, {
      indexer: suiteIndexer,
      graph: createGraph(),
      readOnly,
    });
    t.after(() => engine.close());
    return engine;
  };
  const home = await tempDir(t);
  const [older, empty] = [join(home, 'older'), join(home, 'empty')];
  const engine = await open(older);
  await engine.update((tx) => tx.put(metaKey('version'), { version: 1 }));
  await engine.close();
  await (await open(empty)).close();
  await assert.rejects(initSchema(await open(older, true)), {
    kind: 'FailedPrecondition',
    message: `the records have revision 1, which is brought to ${SCHEMA_REVISION} at opening`,
  });
  await initSchema(await open(empty, true));
});
