import assert from 'node:assert/strict';
import { once } from 'node:events';
import { cpSync, existsSync, lstatSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { orOlderDaemon } from '../../src/cli/remote/find-daemon.js';
import { RemoteStore } from '../../src/cli/remote/store.js';
import type { EbbtideError } from '../../src/errors.js';
import { StoreInUse } from '../../src/in-use.js';
import { isListening } from '../../src/server/connections/listener.js';
import { Cli, cli, cliWithoutStore, layout } from '../cli/support.js';
import { tempDir } from '../support/temp.js';

interface Row {
  name: string;
  id: string;
  kind: string;
  digest: string;
}

/** A daemon on the command's root, found by the command itself. */
async function daemon(
  t: TestContext,
  command: Cli,
): Promise<{ address: string; stop(): Promise<number | null> }> {
  const server = command.start('serve', '--gc', 'on-request');
  t.after(() => server.child.kill('SIGKILL'));
  const address = join(command.root, 'run', 'ebbtide.sock');
  while (!(existsSync(join(command.root, 'daemon.json')) && (await isListening(address)))) {
    if (server.child.exitCode !== null) throw new Error(server.stderr());
    await sleep(20);
  }
  return {
    address,
    async stop() {
      server.child.kill('SIGTERM');
      return (await server.ended).code;
    },
  };
}

test('verbs work the same through a daemon that has the root', async (t) => {
  const command = await cli(t);
  const source = await layout(t);
  const { stop } = await daemon(t, command);

  // Images: imported with their snapshots, listed, tagged, labelled, exported, removed.
  const imported = await command.json<Row[]>('import', source.path, '--unpack', 'native');
  assert.deepEqual(
    imported.map((i) => i.name),
    ['example.com/one:1', 'example.com/two:1'],
  );
  await command.ok('images', 'tag', 'example.com/one:1', 'example.com/three:1');
  await command.fails(4, /already exists/, 'images', 'tag', 'example.com/two:1', 'example.com/three:1');
  await command.ok('images', 'tag', 'example.com/two:1', 'example.com/three:1', '--force');
  await command.ok('images', 'label', 'example.com/three:1', 'a=1', 'b=2');
  await command.ok('images', 'label', 'example.com/three:1', 'a=');
  const three = await command.json<{ labels: object; target: Row }>('images', 'show', 'example.com/three:1');
  assert.deepEqual(three.labels, { b: '2' });
  const two = await command.json<{ target: Row }>('images', 'show', 'example.com/two:1');
  assert.equal(three.target.digest, two.target.digest);
  await command.fails(
    3,
    /image "nosuch" not found \(NotFound\)\n {2}ebbtide images ls/,
    'images',
    'show',
    'nosuch',
  );
  const tar = join(command.root, '..', 'out.tar');
  await command.ok('export', 'example.com/one:1', '-o', tar);
  assert.equal(existsSync(tar), true);

  // Content: listed, shown, and byte for byte.
  const blobs = await command.json<Row[]>('content', 'ls');
  assert.equal(blobs.length, 7);
  const manifest = await command.ok('content', 'cat', source.manifest);
  assert.equal(
    manifest,
    readFileSync(join(source.path, 'blobs', 'sha256', source.manifest.slice(7)), 'utf8'),
  );
  assert.equal((await command.json<Row>('content', 'info', source.base)).digest, source.base);

  // Containers and snapshots.
  await command.ok('containers', 'create', 'web', '--image', 'example.com/one:1');
  assert.deepEqual(
    (await command.json<Row[]>('containers', 'ls')).map((c) => c.id),
    ['web'],
  );
  const snapshots = await command.json<Row[]>('snapshots', 'ls');
  assert.deepEqual(snapshots.map((s) => s.kind).sort(), ['active', 'committed', 'committed', 'committed']);
  assert.match(await command.ok('snapshots', 'mounts', 'web'), /^mount -t bind /);
  await command.ok('snapshots', 'info', 'web');

  // Leases and namespaces.
  await command.ok('leases', 'create', 'mine', '--expires', '1h', '--label', 'a=1');
  await command.ok('leases', 'add', 'mine', 'content', source.base);
  const leases = await command.json<(Row & { resources: Row[] })[]>('leases', 'ls');
  assert.deepEqual([leases[0]?.id, leases[0]?.resources.length], ['mine', 1]);
  await command.ok('leases', 'rm', 'mine');
  await command.ok('namespaces', 'create', 'spare', '--label', 'a=1');
  await command.ok('namespaces', 'label', 'spare', 'b=2');
  const namespaces = await command.json<Row[]>('namespaces', 'ls');
  assert.deepEqual(
    namespaces.map((n) => n.name),
    ['spare', 'test'],
  );
  await command.ok('namespaces', 'rm', 'spare');

  // What only this store has: why, du, plans, collections; with kinds, remedies and exit codes.
  const why = await command.json<{ state: string; paths: Row[][] }>('why', '--kind', 'snapshot', 'web');
  assert.deepEqual([why.state, why.paths[0]?.map((step) => step.kind)], ['kept', ['container', 'snapshot']]);
  await command.fails(3, /no object/, 'why', 'sha256:0000');
  const usage = await command.json<{ rows: Row[] }>('du', '--by', 'image');
  const about = await command.ok('content', 'info', source.base.slice(7, 23));
  assert.match(about, new RegExp(`^digest +${source.base}\n`));
  assert.match(
    await command.ok('images', 'ls', '--format', '{name} {size}'),
    /^example.com\/one:1 [1-9]\d+$/m,
  );
  assert.equal(usage.rows.length, 3);
  await command.ok('images', 'rm', 'example.com/two:1', 'example.com/three:1');
  const dry = await command.json<{ wouldRemove: Row[]; usage: { disk?: object } }>('gc', '--dry-run');
  assert.ok(dry.usage.disk);
  const plan = join(command.root, '..', 'plan.json');
  await command.ok('gc', '--plan', plan);
  const applied = await command.json<{ removed: Row[]; rest: Row[] }>('gc', '--apply', plan);
  assert.deepEqual([applied.removed.length, applied.rest.length], [dry.wouldRemove.length, 0]);
  assert.equal(dry.wouldRemove.length > 0, true);
  const again = await command.json<{ removed: Record<string, number> }>('gc');
  assert.deepEqual(again.removed, {});
  await command.ok('containers', 'rm', 'web');
  await command.ok('images', 'rm', 'example.com/one:1', '--sync');
  assert.deepEqual(await command.json('content', 'ls'), []);
  assert.deepEqual(await command.json('snapshots', 'ls'), []);

  // Verbs that need the store itself say so; the doctor says which process has it.
  await command.fails(5, /a daemon has the store[\s\S]*stop it first/, 'synth', '--records', '100');
  assert.match(await command.ok('doctor', '--check'), /in use by the daemon at/);
  assert.equal(await stop(), 0);
  assert.match(await command.ok('doctor', '--check'), /state +sound/);
});

test('a daemon is named by option or environment; one that does not respond is an error', async (t) => {
  const command = await cli(t);
  const { address } = await daemon(t, command);
  await command.ok('images', 'ls', '--address', address);
  const elsewhere = await cliWithoutStore(t);
  await command.ok('namespaces', 'create', 'here');
  const names = await elsewhere.json<Row[]>('namespaces', 'ls', '--address', address);
  assert.deepEqual(
    names.map((n) => n.name),
    ['here'],
  );
  assert.equal(existsSync(elsewhere.root), false);
  await elsewhere.fails(
    6,
    /no daemon listens at/,
    'images',
    'ls',
    '--address',
    join(elsewhere.root, 'no.sock'),
  );
});

test('what listens at the address a root was left with is used only if it is the daemon of that directory', async (t) => {
  const command = await cli(t);
  const { address } = await daemon(t, command);
  await command.ok('namespaces', 'create', 'original');
  // A copy has the file with the address, and the daemon there has another root.
  const copy = new Cli(join(command.root, '..', 'copy'));
  cpSync(command.root, copy.root, { recursive: true, filter: (path) => !lstatSync(path).isSocket() });
  const removed = await copy.run('namespaces', 'rm', 'original');
  assert.deepEqual([removed.code, removed.stdout], [0, 'original\n'], removed.stderr);
  assert.deepEqual(await copy.json('namespaces', 'ls'), []);
  // So has a root whose daemon was killed before another one took the address.
  const killed = await cli(t);
  writeFileSync(join(killed.root, 'daemon.json'), JSON.stringify({ address, pid: 1 }));
  await killed.ok('namespaces', 'create', 'mine');
  assert.match(await killed.ok('doctor', '--check'), /state +sound/);
  const names = await command.json<Row[]>('namespaces', 'ls');
  assert.deepEqual(
    names.map(({ name }) => name),
    ['original'],
  );
  // Another name of the same directory.
  const link = new Cli(join(command.root, '..', 'link'));
  symlinkSync(command.root, link.root);
  assert.match(await link.ok('doctor', '--check'), /in use by the daemon at/);
});

test('a root in use whose daemon does not say which root it has is told to be that of an earlier version', async (t) => {
  const root = await tempDir(t);
  const address = join(root, 'its.sock');
  writeFileSync(join(root, 'daemon.json'), JSON.stringify({ address, pid: 1 }));
  const server = createServer((socket) => socket.destroy()).listen(address);
  t.after(() => server.close());
  await once(server, 'listening');
  let rootIdentity: string | undefined;
  t.mock.method(RemoteStore, 'connect', async () => ({
    ...{ address, rootIdentity },
    [Symbol.asyncDispose]: async () => {},
  }));
  const error = new StoreInUse(root, 'process 1 (node)');
  const { kind, message, remedy } = (await orOlderDaemon(error, root)) as EbbtideError;
  assert.equal(kind, 'Unavailable');
  assert.match(message, /in use by process 1 .* earlier version/);
  assert.match(remedy ?? '', /restart .*--address .*its\.sock/);
  rootIdentity = '1:1';
  assert.equal(await orOlderDaemon(error, root), error);
});

test('the remedy of an error crosses the socket', async (t) => {
  const command = await cli(t);
  await daemon(t, command);
  const plan = join(command.root, '..', 'plan.json');
  const later = { format: 'ebbtide-plan', version: 1, createdAt: '2026-01-01T00:00:00Z', revision: 10 ** 9 };
  writeFileSync(plan, JSON.stringify({ ...later, bytes: 0, objects: [] }));
  await command.fails(5, /\(FailedPrecondition\)\n {2}make a plan of this store/, 'gc', '--apply', plan);
});
