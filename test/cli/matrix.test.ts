/** Every verb of the tree with everything that can be wrong around it. A new verb is in it as soon as it is in the tree. */
import assert from 'node:assert/strict';
import { existsSync, openSync, readdirSync } from 'node:fs';
import { chmod, cp, readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, test } from 'node:test';
import type { Command } from 'commander';
import { commandsIn, isLeaf, pathOf } from '../../src/cli/command-tree.js';
import { exitCodes } from '../../src/cli/exit-codes.js';
import { createProgram } from '../../src/cli/program.js';
import type { ErrorKind } from '../../src/errors.js';
import { importImage } from '../../src/images/import.js';
import { openDB } from '../../src/open.js';
import { withId } from '../../src/stores/leases.js';
import { tempDir } from '../support/temp.js';
import { type Outcome, runMany } from './batch.js';
import { layout } from './support.js';

const ONE = 'example.com/one:1';
const ctx = { namespace: 'test' };
const ABSENT = `sha256:${'0'.repeat(64)}`;

/** They need no store. */
const NO_STORE = ['completion', 'demo', 'doctor', 'restore', 'schema', 'snapshots umount'];
/** They look into another program's root: test/any-host/live.test.ts. */
const FOREIGN = ['orphans', 'salvage'];
/** They make one. */
const MAKERS = ['import', 'init', 'serve', 'synth'];
/** They are about the whole store. */
const WHOLE = [
  ...NO_STORE,
  'backup',
  'check',
  'compact',
  'export-graph',
  'gc',
  'heal',
  'history',
  'hosts ls',
  'hosts rm',
  'init',
  'namespaces create',
  'namespaces label',
  'namespaces ls',
  'namespaces rm',
  'policy apply',
  'policy plan',
  'policy show',
  'serve',
  'synth',
  'verify',
  'view',
];
/** They write into a namespace, which makes it. */
const WRITERS = ['containers create', 'import', 'leases create', 'snapshots prepare'];

/** They print nothing, or not here. */
const NOT_PRINTING = [
  'backup',
  'restore',
  'serve',
  'snapshots mount',
  'snapshots umount',
  'hosts ls',
  'hosts rm',
];

/** What verbs are given where a word of their usage is not enough. */
const given: Readonly<Record<string, readonly string[]>> = {
  backup: ['/proc/nope/backup'],
  completion: ['bash'],
  export: [ONE, '-'],
  'images show': [ONE],
  'images tag': [ONE, 'tagged'],
  'images label': [ONE, 'a=b'],
  'content info': ['BASE'],
  'content cat': ['BASE'],
  'content rm': ['MANIFEST'],
  'snapshots prepare': ['new'],
  'snapshots view': ['look', 'done'],
  'snapshots commit': ['made', 'work'],
  'snapshots info': ['done'],
  'snapshots mounts': ['spare'],
  'snapshots mount': ['spare', '/proc/nope/target'],
  'containers create': ['fresh'],
  'leases create': ['fresh'],
  'leases add': ['victim', 'content', 'BASE'],
  'namespaces create': ['fresh'],
  'namespaces label': ['spare', 'a=b'],
  'policy show': ['--file', 'POLICY'],
  'policy plan': ['--file', 'POLICY'],
  'policy apply': ['--file', 'POLICY'],
  schema: [],
  why: ['BASE'],
  demo: ['SOURCE', '-s', 'native'],
  import: ['SOURCE'],
  synth: ['--records', '100'],
};

interface Verb {
  path: string;
  command: Command;
  words: readonly string[];
}

let verbs: Verb[];
let store: string;
let source: string;
let digest: string;
let manifest: string;
let dir: string;

/** A store in which every verb has something to do. Copied where it is changed. */
before(async () => {
  dir = await tempDir();
  // As another user has to get there.
  await chmod(dir, 0o755);
  const made = await layout();
  [source, digest, manifest] = [made.path, made.base, made.manifest];
  store = join(dir, 'store');
  {
    await using db = await openDB({ root: store, log: () => undefined });
    await importImage(db, ctx, source);
    await db.images.create(ctx, { ...(await db.images.get(ctx, ONE)), name: 'victim' });
    await db.leases.create(ctx, withId('victim'));
    await db.containers.create(ctx, {
      id: 'victim',
      runtime: { name: 'runc' },
      spec: { typeUrl: '', value: Buffer.from('{}') },
    });
    for (const name of ['victim', 'spare']) await db.namespaces.create({}, name);
    const snapshots = db.snapshotter('native')!;
    await snapshots.prepare(ctx, 'first', '');
    await snapshots.commit(ctx, 'done', 'first');
    for (const key of ['victim', 'spare', 'work']) await snapshots.prepare(ctx, key, '');
  }
  const policy = join(dir, 'policy.json');
  await writeFile(policy, JSON.stringify({ rules: [{ filters: ['name==victim'] }] }));
  const words = (path: string): readonly string[] =>
    (given[path] ?? ['victim']).map(
      (word) => ({ BASE: digest, MANIFEST: manifest, SOURCE: source, POLICY: policy })[word] ?? word,
    );
  verbs = [...commandsIn(await createProgram())].filter(isLeaf).map((command) => {
    const path = pathOf(command);
    const needed = command.registeredArguments.some(({ required }) => required) || path in given;
    return { path, command, words: [...path.split(' '), ...(needed ? words(path) : [])] };
  });
});

const pick = (wanted: (verb: Verb) => boolean): Verb[] => verbs.filter(wanted);
const except = (...groups: readonly (readonly string[])[]): Verb[] =>
  pick(({ path }) => ![...FOREIGN, ...groups.flat()].includes(path));

const isRemark = (line: string): boolean => line.startsWith('ebbtide: ') && !/ \(\w+\)$/.test(line);

/** One line with its kind, a remedy, the exit code of the kind. */
function checkFailure({ path }: Verb, { code, stderr }: Outcome, kinds: readonly ErrorKind[]): void {
  const about = `${path}: ${stderr}`;
  assert.doesNotMatch(stderr, /\n\s+at .*:\d+/, about);
  const lines = stderr.split('\n').filter((line) => line !== '' && !isRemark(line));
  const [, kind] = /^ebbtide: .* \((\w+)\)$/.exec(lines[0] ?? '') ?? [];
  assert.ok(kinds.includes(kind as ErrorKind), about);
  assert.equal(code, exitCodes[kind as ErrorKind], about);
  assert.match(lines[1] ?? '', /^ {2}\S/, `${path} has no remedy: ${stderr}`);
  assert.equal(lines.length, 2, about);
}

/** As `words`; of what wants an empty store, in one of its own. */
const onItsStore = ({ path, words }: Verb, name: string): readonly string[] =>
  path === 'synth' ? [...words, '--root', join(dir, `${name}-empty`)] : words;

/** Fails for each verb that did not fail in one of these ways. */
async function fails(
  root: string,
  failing: readonly Verb[],
  kinds: readonly ErrorKind[],
  change: (verb: Verb) => readonly string[],
  options = {},
): Promise<void> {
  const outcomes = await runMany(root, failing.map(change), options);
  for (const [n, outcome] of outcomes.entries()) checkFailure(failing[n]!, outcome, kinds);
}

const copyOfStore = async (name: string): Promise<string> => {
  const copy = join(dir, name);
  await cp(store, copy, { recursive: true, preserveTimestamps: true });
  return copy;
};

describe('every verb', () => {
  test('given a root that is not there, then no store, and nothing is made', async () => {
    const root = join(dir, 'nothing');
    const before = await readdir(dir);
    await fails(root, except(NO_STORE, MAKERS), ['NotFound'], ({ words }) => words);
    const impossible = pick(({ path }) => MAKERS.includes(path));
    await fails('/proc/nope/a', impossible, ['NotFound'], ({ words }) => words);
    assert.deepEqual(await readdir(dir), before);
  });

  test('given a namespace that is not there, then a line says so, and one that cannot be is refused', async () => {
    const root = await copyOfStore('namespaces');
    const readers = except(WHOLE, WRITERS);
    const outcomes = await runMany(
      root,
      readers.map(({ words }) => [...words, '-n', 'typo']),
    );
    for (const [n, outcome] of outcomes.entries()) {
      assert.match(outcome.stderr, /there is no namespace "typo" yet; there are: /, readers[n]!.path);
      if (outcome.code !== 0) checkFailure(readers[n]!, outcome, ['NotFound']);
    }
    await fails(root, except(WHOLE), ['InvalidArgument'], ({ words }) => [...words, '-n', 'no such']);
    await using db = await openDB({ root, log: () => undefined });
    assert.deepEqual(await db.namespaces.list({}), ['spare', 'test', 'victim']);
  });

  test('given a digest that is none, or not there, then that is said', async () => {
    const root = await copyOfStore('digests');
    const takers = pick(({ words }) => words.includes(digest) || words.includes(manifest));
    assert.ok(takers.length >= 5);
    const instead =
      (text: string) =>
      ({ words }: Verb) =>
        words.map((word) => (word === digest || word === manifest ? text : word));
    await fails(root, takers, ['InvalidArgument', 'NotFound'], instead('sha256:zz'));
    await fails(
      root,
      takers.filter(({ path }) => path !== 'leases add'),
      ['NotFound'],
      instead(ABSENT),
    );
    await fails(root, takers, ['NotFound'], instead('00000000'));
  });

  test('given a snapshotter that is not there, then the names there are, and nothing is made', async () => {
    const root = await copyOfStore('snapshotters');
    const options = /^--(snapshotters?|unpack)$/;
    const takers = pick(({ command }) => command.options.some(({ long }) => options.test(long ?? '')));
    const before = readdirSync(root, { recursive: true }).length;
    const outcomes = await runMany(
      root,
      takers.map(({ path, command, words }) => [
        ...words,
        ...(path === 'containers create' ? ['--image', ONE] : []),
        command.options.find(({ long }) => options.test(long ?? ''))!.long!,
        'zfs',
      ]),
    );
    for (const [n, outcome] of outcomes.entries()) {
      checkFailure(takers[n]!, outcome, ['NotFound', 'InvalidArgument']);
      assert.match(outcome.stderr, /zfs"[\s\S]*(native|overlayfs)/, takers[n]!.path);
    }
    assert.equal(readdirSync(root, { recursive: true }).length, before);
  });

  test('given another user, then permission is what is missing', async (t) => {
    if (process.getuid?.() !== 0) return t.skip('only root can be another user');
    const root = await copyOfStore('permissions');
    const outside = except(NO_STORE);
    const lines = [['serve', '--root', '/proc/nope/a'], ...outside.map(({ words }) => words)];
    const [, ...outcomes] = await runMany(root, lines, { env: { NOBODY: '1' } });
    for (const [n, outcome] of outcomes.entries()) {
      checkFailure(outside[n]!, outcome, ['FailedPrecondition']);
      assert.match(outcome.stderr, /EACCES|permission denied/i, outside[n]!.path);
    }
  });

  test('given a full device, then one line and exit code 6', async (t) => {
    if (!existsSync('/dev/full')) return t.skip('this system has no /dev/full');
    const printing = except(NOT_PRINTING);
    const outcomes = await runMany(
      await copyOfStore('full'),
      printing.map((verb) => onItsStore(verb, 'full')),
      { stdout: openSync('/dev/full', 'w') },
    );
    for (const [n, { code, stderr }] of outcomes.entries()) {
      const { path } = printing[n]!;
      assert.equal(code, exitCodes.Unavailable, `${path}: ${stderr}`);
      const lines = stderr.split('\n').filter((line) => line !== '' && !isRemark(line));
      assert.deepEqual(
        lines.map((line) => line.replace(/ENOSPC.*/, '')),
        ['ebbtide: cannot write to standard output: '],
        path,
      );
    }
  });

  test('given a reader that has gone, then nothing is said', async () => {
    const printing = except(NOT_PRINTING);
    const root = await copyOfStore('gone');
    const lines = printing.map((verb) => onItsStore(verb, 'gone'));
    for (const [n, { code, stderr }] of (await runMany(root, lines, { stdout: 'gone' })).entries()) {
      const said = stderr.split('\n').filter((line) => line !== '' && !isRemark(line));
      assert.deepEqual([code, said], [0, []], printing[n]!.path);
    }
  });
});
