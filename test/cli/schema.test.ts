import assert from 'node:assert/strict';
import { mkdir, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { canMount } from '../../src/backends/mounts.js';
import { commandsIn, isLeaf, pathOf } from '../../src/cli/command-tree.js';
import { createProgram } from '../../src/cli/program.js';
import { readSchema } from '../../src/cli/schema.js';
import { openDB, layout as paths } from '../../src/open.js';
import { checkDocument, checkError, checked } from './schema.js';
import { cli, layout } from './support.js';

const ONE = 'example.com/one:1';
const TWO = 'example.com/two:1';

/** They print scripts, bytes, a schema, or nothing. */
const WITHOUT_DOCUMENT = ['completion', 'content cat', 'schema', 'serve'];
/** Of a tree in etcd: test/etcd/cli.test.ts checks them. */
const SHARED_ONLY = ['hosts ls', 'hosts rm'];

test('given the tree of verbs, then each has a schema, and no schema is of another', async () => {
  const verbs = [...commandsIn(await createProgram())].filter(isLeaf).map(pathOf);
  assert.deepEqual(
    Object.keys(readSchema().properties).sort(),
    verbs.filter((verb) => !WITHOUT_DOCUMENT.includes(verb)).sort(),
  );
});

test('given a store, when every verb prints JSON, then it is what its schema says, and nothing beside it', async (t) => {
  const run = await cli(t);
  const { path, base, manifest } = await layout(t);
  const beside = (name: string): string => join(run.root, '..', name);
  await run.json('init');
  await run.json('import', path, '--unpack', 'native');
  await run.json('images', 'ls');
  await run.json('images', 'show', ONE);
  await run.json('images', 'tag', ONE, 'mine');
  await run.json('images', 'label', 'mine', 'colour=blue');
  await run.json('export', ONE, '-o', beside('out'));
  await run.json('content', 'ls');
  await run.json('content', 'info', manifest);
  await run.json('snapshots', 'prepare', 'work');
  await run.json('snapshots', 'commit', 'done', 'work', '--label', 'a=b');
  await run.json('snapshots', 'view', 'look', 'done');
  await run.json('snapshots', 'mounts', 'look', '/mnt');
  await run.json('snapshots', 'info', 'done');
  await run.json('snapshots', 'ls');
  await run.json('snapshots', 'rm', 'look');
  await run.json('containers', 'create', 'web', '--image', ONE, '--label', 'tier=front');
  await run.json('containers', 'create', 'bare');
  await run.json('containers', 'ls');
  await run.json('leases', 'create', 'keep', '--expires', '24h', '--label', 'owner=ci');
  await run.json('leases', 'create', 'brief');
  await run.json('leases', 'add', 'keep', 'content', base);
  await run.json('leases', 'ls');
  await run.json('namespaces', 'create', 'other', '--label', 'x=1');
  await run.json('namespaces', 'label', 'other', 'y=2');
  await run.json('namespaces', 'ls');
  await run.json('namespaces', 'rm', 'other');
  await run.json('why', base, '--all');
  await run.json('why', base);
  await run.json('containers', 'rm', 'bare');
  await run.json('images', 'rm', TWO);
  {
    await using db = await openDB({ root: run.root });
    const writer = await db.content.writer({ namespace: 'test' }, 'half');
    await writer.write(Buffer.alloc(5000));
    await writer.close();
  }
  await run.json('content', 'ls', '--ingests');
  for (const by of ['root', 'namespace', 'snapshotter', 'none']) await run.json('du', '--by', by);
  await run.json('du', '-A', '--without', 'mine');
  await run.json('du', '--no-disk');
  await run.json('gc', '--dry-run', '--full');
  await run.json('gc', '--plan', beside('plan.json'));
  await run.json('gc', '--apply', beside('plan.json'));
  await run.json('gc', '--full');
  await run.json('content', 'rm', manifest);
  await run.json('leases', 'rm', 'brief');
  await run.json('check');
  await run.json('doctor');
  await run.json('doctor', '--check');
  await truncate(join(paths.content(run.root), 'blobs', 'sha256', base.slice(7)), 10);
  for (const verb of [['check'], ['doctor', '--check']]) {
    const { code, stdout } = await run.run(...verb, '--json');
    assert.equal(code, 5);
    checkDocument(verb, JSON.parse(stdout));
  }
  await run.json('demo', path, '-s', 'native');
  const { code, stdout } = await run.run('synth', '--records', '100', '--json', '--root', beside('dense'));
  assert.equal(code, 0);
  checkDocument(['synth'], JSON.parse(stdout));
  const absent = await run.run('doctor', '--check', '--json', '--root', beside('nothing'));
  assert.equal(absent.code, 3);
  checkDocument(['doctor'], JSON.parse(absent.stdout));
  for (const words of [
    ['images', 'show', 'nope'],
    ['images', 'rm'],
    ['--root', '/proc/nope', 'images', 'ls'],
  ]) {
    const { stderr } = await run.run(...words, '--json');
    checkError(JSON.parse(stderr));
  }
  const mountable = await canMount();
  const mounted = ['snapshots mount', 'snapshots umount'];
  if (mountable.ok) {
    await mkdir(beside('mnt'));
    await run.json('snapshots', 'mount', 'web', beside('mnt'));
    await run.json('snapshots', 'umount', beside('mnt'));
  } else t.diagnostic(`mounts are not tried: ${mountable.reason}`);
  const expected = Object.keys(readSchema().properties).filter(
    (verb) => !SHARED_ONLY.includes(verb) && (mountable.ok || !mounted.includes(verb)),
  );
  assert.deepEqual([...checked].filter((verb) => verb !== 'error').sort(), expected.sort());
});

test('given a schema, when verbs ask for it, then each gets its own, and one without a document is told so', async (t) => {
  const run = await cli(t);
  const whole = JSON.parse(await run.ok('schema')) as { properties: object };
  assert.deepEqual(whole, readSchema());
  const one = JSON.parse(await run.ok('schema', 'images', 'ls')) as { title: string; $ref: string };
  assert.deepEqual([one.title, one.$ref], ['images ls', '#/$defs/images']);
  await run.fails(2, /"content cat" prints no JSON document/, 'schema', 'content', 'cat');
});

test('given what no schema has, when documents are compared, then that fails', () => {
  assert.throws(() => checkDocument(['images', 'rm', 'a'], { removed: ['a'], more: 1 }), /more/);
  assert.throws(() => checkDocument(['init'], {}), /root/);
  assert.throws(() => checkDocument(['fly'], {}), /no schema/);
});
