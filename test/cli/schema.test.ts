import assert from 'node:assert/strict';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { canMount } from '../../src/backends/mounts.js';
import { commandsIn, isLeaf, pathOf } from '../../src/cli/command-tree.js';
import { createProgram } from '../../src/cli/program.js';
import { readSchema } from '../../src/cli/schema.js';
import { openDB, layout as paths } from '../../src/open.js';
import { runMany } from './batch.js';
import { checkDocument, checkError, checked } from './schema.js';
import { cli, layout } from './support.js';

const ONE = 'example.com/one:1';
const TWO = 'example.com/two:1';

/** They print scripts, bytes, a schema, or nothing. */
const WITHOUT_DOCUMENT = ['completion', 'content cat', 'schema', 'serve'];
/** Of a tree in etcd: test/etcd/cli.test.ts checks them; of another program's root: test/any-host/live.test.ts. */
const ELSEWHERE = ['hosts ls', 'hosts rm', 'orphans', 'salvage'];

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
  const lines: string[][] = [];
  const say = (...line: string[]): void => void lines.push(line);
  /** Runs what was said, or these lines, and compares what they print. */
  const print = async (code = 0, ...others: string[][]): Promise<void> => {
    const said = [...lines.splice(0), ...others];
    const outcomes = await runMany(
      run.root,
      said.map((line) => [...line, '--json']),
      { stdout: 'capture' },
    );
    for (const [n, outcome] of outcomes.entries()) {
      assert.deepEqual([outcome.code, outcome.stderr.trim()], [code, ''], said[n]!.join(' '));
      checkDocument(said[n]!, JSON.parse(outcome.stdout));
    }
  };
  say('init');
  say('import', path, '--unpack', 'native');
  say('images', 'ls');
  say('images', 'show', ONE);
  say('images', 'tag', ONE, 'mine');
  say('images', 'label', 'mine', 'colour=blue');
  say('export', ONE, '-o', beside('out'));
  say('content', 'ls');
  say('content', 'info', manifest);
  say('snapshots', 'prepare', 'work');
  say('snapshots', 'commit', 'done', 'work', '--label', 'a=b');
  say('snapshots', 'view', 'look', 'done');
  say('snapshots', 'mounts', 'look', '/mnt');
  say('snapshots', 'info', 'done');
  say('snapshots', 'ls');
  say('snapshots', 'rm', 'look');
  say('containers', 'create', 'web', '--image', ONE, '--label', 'tier=front');
  say('containers', 'create', 'bare');
  say('containers', 'ls');
  say('leases', 'create', 'keep', '--expires', '24h', '--label', 'owner=ci');
  say('leases', 'create', 'brief');
  say('leases', 'add', 'keep', 'content', base);
  say('leases', 'ls');
  say('namespaces', 'create', 'other', '--label', 'x=1');
  say('namespaces', 'label', 'other', 'y=2');
  say('namespaces', 'ls');
  say('namespaces', 'rm', 'other');
  say('why', base, '--all');
  say('why', base);
  say('containers', 'rm', 'bare');
  say('images', 'rm', TWO);
  await print();
  {
    await using db = await openDB({ root: run.root });
    const writer = await db.content.writer({ namespace: 'test' }, 'half');
    await writer.write(Buffer.alloc(5000));
    await writer.close();
  }
  say('content', 'ls', '--ingests');
  for (const by of ['root', 'namespace', 'snapshotter', 'none']) say('du', '--by', by);
  say('du', '-A', '--without', 'mine');
  say('du', '--no-disk');
  say('gc', '--dry-run', '--full');
  say('gc', '--plan', beside('plan.json'));
  say('gc', '--apply', beside('plan.json'));
  say('gc', '--full');
  await writeFile(
    beside('policy.json'),
    JSON.stringify({ rules: [{ filters: ['name==mine'], keepLast: 0 }] }),
  );
  say('policy', 'show', '--file', beside('policy.json'));
  say('policy', 'plan', '--file', beside('policy.json'), '-o', beside('policy-plan.json'));
  say('policy', 'apply', beside('policy-plan.json'));
  say('history');
  say('content', 'rm', manifest);
  say('leases', 'rm', 'brief');
  say('check');
  say('verify', '--hash');
  say('heal');
  say('doctor');
  say('doctor', '--check');
  await print();
  await truncate(join(paths.content(run.root), 'blobs', 'sha256', base.slice(7)), 10);
  await print(5, ['check'], ['doctor', '--check'], ['backup', beside('backup')]);
  say('--root', beside('restored'), 'restore', beside('backup'), '--damaged');
  await print(5);
  say('compact');
  say('demo', path, '-s', 'native');
  await print();
  const { code, stdout } = await run.run('synth', '--records', '100', '--json', '--root', beside('dense'));
  assert.equal(code, 0);
  checkDocument(['synth'], JSON.parse(stdout));
  const absent = await run.run('doctor', '--check', '--json', '--root', beside('nothing'));
  assert.equal(absent.code, 3);
  checkDocument(['doctor'], JSON.parse(absent.stdout));
  const failing = [
    ['images', 'show', 'nope'],
    ['images', 'rm'],
    ['--root', '/proc/nope', 'images', 'ls'],
  ];
  for (const { stderr } of await runMany(
    run.root,
    failing.map((line) => [...line, '--json']),
  ))
    checkError(JSON.parse(stderr));
  const mountable = await canMount();
  const mounted = ['snapshots mount', 'snapshots umount'];
  if (mountable.ok) {
    await mkdir(beside('mnt'));
    say('snapshots', 'mount', 'web', beside('mnt'));
    say('snapshots', 'umount', beside('mnt'));
    await print();
  } else t.diagnostic(`mounts are not tried: ${mountable.reason}`);
  const expected = Object.keys(readSchema().properties).filter(
    (verb) => !ELSEWHERE.includes(verb) && (mountable.ok || !mounted.includes(verb)),
  );
  assert.deepEqual([...checked].filter((verb) => verb !== 'error').sort(), expected.sort());
});

test('given a schema, when verbs ask for it, then each gets its own, and one without a document says so', async (t) => {
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
