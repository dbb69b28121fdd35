/** Every row of docs/api.md is true, and what it names works; constants have the values that others rely on. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as ebbtide from '../../src/index.js';
import { testDB } from '../support/db.js';
import { repository } from './consumer.js';

/** Names that are types only: the compiler sees to it that they are there, with their members. */
const types = {
  Adaptor: undefined satisfies ebbtide.Adaptor | undefined,
  CollectionContext: undefined satisfies
    | Required<
        Pick<
          ebbtide.CollectionContext,
          'all' | 'active' | 'leased' | 'remove' | 'cancel' | 'finish' | 'activeWithBackRefs' | 'references'
        >
      >
    | undefined,
  Collector: undefined satisfies Pick<ebbtide.Collector, 'startCollection' | 'referenceLabel'> | undefined,
  ContentWriter: undefined satisfies
    | Pick<ebbtide.ContentWriter, 'write' | 'digest' | 'status' | 'truncate' | 'commit' | 'close' | 'sync'>
    | undefined,
  DBOpt: undefined satisfies ebbtide.DBOpt | undefined,
  GCStats: undefined satisfies
    | Pick<ebbtide.GCStats, 'metaD' | 'contentD' | 'snapshotD' | 'elapsed'>
    | undefined,
  Node: undefined satisfies ebbtide.Node | undefined,
  Transactor: undefined satisfies
    | Pick<ebbtide.Transactor, 'get' | 'put' | 'lock' | 'rLock' | 'tryLock'>
    | undefined,
};

interface Row {
  /** What it is called here: `name`, or `Type.member`. */
  name: string;
  value: string | undefined;
  file: string;
  tests: { file: string; numbers: string[] }[];
}

const read = (path: string): string => readFileSync(join(repository, path), 'utf8');
const exported: Readonly<Record<string, unknown>> = ebbtide;

function rows(): Row[] {
  const found: Row[] = [];
  for (const line of read('docs/api.md').split('\n')) {
    if (!line.startsWith('| ') || line.startsWith('| Go ')) continue;
    const cells = line.slice(2, -2).split(' | ');
    const [name, value] = [cells[1], cells.length === 5 ? cells[2] : undefined];
    const [file, tests] = cells.slice(-2);
    assert.ok(name !== undefined && file !== undefined && tests !== undefined, line);
    found.push({
      name: name.replaceAll('`', ''),
      value: value?.replaceAll('`', ''),
      file,
      tests: tests.split('; ').map((text) => {
        const [path, ...numbers] = text.split(' ');
        return { file: path ?? '', numbers };
      }),
    });
  }
  return found;
}

const isFunctionWithPrototype = (value: unknown): value is { prototype: object } =>
  typeof value === 'function' && typeof value.prototype === 'object';

test('given the checklist, when its names are looked up, then each is exported and in the file it names', () => {
  const listed = rows();
  assert.ok(listed.length > 190, `${listed.length} rows`);
  for (const { name, file } of listed) {
    const [owner = '', member] = name.split('.');
    const isType = Object.hasOwn(types, owner);
    assert.ok(owner in exported || isType, `${owner} is exported`);
    const holder = exported[owner];
    if (member !== undefined && isFunctionWithPrototype(holder)) {
      assert.ok(member in holder.prototype, `${name} is there`);
    }
    assert.ok(new RegExp(`\\b${member ?? owner}\\b`).test(read(file)), `${name} is in ${file}`);
  }
});

test('given the checklist, when its tests are looked up, then each exists and carries the numbers', () => {
  const untrue: string[] = [];
  for (const { name, tests } of rows()) {
    const word = new RegExp(`\\b${name.split('.').at(-1)}\\b`);
    for (const { file, numbers } of tests) {
      const source = read(file);
      const missing = numbers.filter((number) => !source.includes(`[#${number}]`));
      if (missing.length > 0) untrue.push(`${name}: ${file} has no test of ${missing.join(', ')}`);
      const isHere = file === 'test/coverage/api.test.ts';
      if (numbers.length === 0 && !isHere && !word.test(source))
        untrue.push(`${name}: ${file} does not use it`);
    }
  }
  assert.deepEqual(untrue, []);
});

test('given the checklist, when its constants are read, then they have the values it names', () => {
  let constants = 0;
  for (const { name, value } of rows()) {
    if (value === undefined) continue;
    assert.equal(String(exported[name]), value, name);
    assert.equal(typeof exported[name], name.startsWith('Key') ? 'string' : 'number', name);
    constants++;
  }
  const all = Object.keys(exported).filter((name) => /^(Key|Resource)[A-Z]/.test(name));
  assert.equal(constants, all.length - 1, 'every constant but the table ResourceType is listed');
});

test('given the words of the stored tree, when compared, then they are spelled as containerd stores them', () => {
  const keys = Object.entries(exported).filter(([name]) => name.startsWith('Key'));
  assert.deepEqual(
    new Set(keys.map(([, value]) => value)),
    new Set(
      (
        'v1 version labels images containers snapshots content blob ingests leases sandboxes digest mediatype size ' +
        'image runtime name parent children options spec snapshotKey snapshotter target extensions createdat ' +
        'updatedat expected ref expireat sandboxid sandboxer annotations scheduler.v1 dirtyCS dirtySS dirty ' +
        'namespaces lock 1 upperdir lowerdir'
      ).split(' '),
    ),
  );
  assert.equal(ebbtide.KeySnapshotKey, 'snapshotKey');
  assert.equal(ebbtide.KeyNil, '1');
  assert.equal(ebbtide.ResourceType.Lease, ebbtide.ResourceLease);
});

test('given a DB, when asked for its content store, then it is the one it has', async (t) => {
  const db = await testDB(t);
  assert.equal(db.contentStore(), db.content);
});

test('given raw keys of a DB, when removed, then their number is returned', async (t) => {
  const db = await testDB(t);
  for (const key of ['a/1', 'a/2', 'b']) await db.put(key, '');
  assert.equal(await db.del('a/', { prefix: true }), 2);
  assert.equal(await db.del('a/1'), 0);
  assert.deepEqual([...(await db.get('', { prefix: true })).keys()], ['b']);
});

test('given a transactor, when it locks inside a transaction, then all kinds of locks end with it', async (t) => {
  const db = await testDB(t);
  await db.eUpdate(async (transactor) => {
    await transactor.rLock('shared');
    await transactor.tryLock('tried');
    await assert.rejects(db.tryLock('shared'), (error) => ebbtide.isKind(error, 'Unavailable'));
    await assert.rejects(transactor.tryLock('tried'), (error) => ebbtide.isKind(error, 'Unavailable'));
  });
  for (const name of ['shared', 'tried']) await (await db.tryLock(name))();
});

test('given one filter, when parsed by itself, then it is the same as a list of one', () => {
  const adaptor = (path: readonly string[]) => (path[0] === 'name' ? 'x' : undefined);
  assert.equal(ebbtide.parseFilter('name==x')(adaptor), true);
  assert.equal(ebbtide.parseFilter('name==y')(adaptor), false);
  assert.equal(ebbtide.parseFilters(['name==y', 'name==x'])(adaptor), true);
  assert.throws(
    () => ebbtide.parseFilter('name='),
    (error) => ebbtide.isKind(error, 'InvalidArgument'),
  );
});

test('given layers, when their chain is named, then each name covers the layer and all below it', () => {
  const [a, b] = [ebbtide.digestOf(Buffer.from('a')), ebbtide.digestOf(Buffer.from('b'))];
  assert.deepEqual(ebbtide.chainIds([a, b]), [a, ebbtide.digestOf(Buffer.from(`${a} ${b}`))]);
  assert.deepEqual(ebbtide.chainIds([]), []);
});

test('given the doors of the package, when compared, then a value is exported by one of them only', async () => {
  const { exports } = JSON.parse(read('package.json')) as {
    exports: Record<string, { default: string } | string>;
  };
  const doors = Object.entries(exports).flatMap(([name, target]) =>
    typeof target === 'string' ? [] : [[name, target.default] as const],
  );
  assert.deepEqual(
    doors.map(([name]) => name),
    ['.', './backend', './testing', './opentelemetry'],
  );
  const seen = new Map<string, string>();
  for (const [door, file] of doors) {
    const module: object = await import(file.replace('./dist/', '../../'));
    for (const name of Object.keys(module)) {
      assert.equal(seen.get(name), undefined, `${name} is exported by ${seen.get(name)} and ${door}`);
      seen.set(name, door);
    }
  }
  const page = read('src/index.ts').split('\n').length;
  assert.ok(page < 150, `src/index.ts has ${page} lines: no page any more`);
});
