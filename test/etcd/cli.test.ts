/** The command line on two hosts: two roots, one etcd, every step a process of its own. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { checkDocument } from '../cli/schema.js';
import { Cli } from '../cli/support.js';
import { Blobs, named, writeFiles } from '../images/fixtures.js';
import { tempDir } from '../support/db.js';
import { run } from './command.js';
import { cluster } from './one-member.js';

test('given two roots and one etcd, when an image is imported on A, then B lists it, A deletes it, B collects it', async (t) => {
  const dir = await tempDir(t);
  const source = join(dir, 'layout');
  const blobs = new Blobs();
  const { manifest } = await blobs.image([[{ name: 'file', text: 'x'.repeat(2000) }]]);
  await writeFiles(source, blobs.layout([named(manifest, 'app:1')]));
  const urls = cluster.urls.join(',');
  const onA = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run({ EBBTIDE_ETCD: urls, EBBTIDE_ROOT: join(dir, 'a') }, ...args);
    assert.equal(code, 0, stderr);
    return stdout;
  };
  const onB = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run({}, '--root', join(dir, 'b'), '--etcd', urls, ...args);
    assert.equal(code, 0, stderr);
    return stdout;
  };
  await onA('import', source);
  const none = await run({}, '--root', join(dir, 'b'), '--etcd', urls, 'images', 'ls');
  assert.deepEqual([none.code, /no store at/.test(none.stderr)], [3, true], 'B has not joined');
  assert.equal(existsSync(join(dir, 'b')), false);
  const prefix = await run({}, '--root', join(dir, 'a'), '--etcd', urls, '--etcd-prefix', 'typo/', 'gc');
  assert.deepEqual([prefix.code, /no tree in etcd under the prefix "typo\/"/.test(prefix.stderr)], [3, true]);
  await onB('init');
  const [image] = JSON.parse(await onB('--json', 'images', 'ls')) as { name: string }[];
  assert.match(image!.name, /app:1$/);
  await onB('images', 'label', image!.name, 'seen=yes');
  assert.match(await onA('--json', 'images', 'show', image!.name), /"seen": ?"yes"/);
  await onA('leases', 'create', 'held');
  assert.match(await onB('leases', 'ls'), /held/);
  await onA('leases', 'rm', 'held');
  await onA('images', 'rm', image!.name);
  const stats = JSON.parse(await onB('--json', 'gc')) as { removed: Record<string, number> };
  assert.equal(stats.removed.content, blobs.all.size);
  assert.equal((JSON.parse(await onB('--json', 'images', 'ls')) as unknown[]).length, 0);
  // A has the bytes, and sweeps them on request.
  const own = JSON.parse(await onA('--json', 'gc')) as { bytesFreed: number };
  assert.ok(own.bytesFreed > 0);
  // Each host has its own history: B removed the records, A bytes only.
  interface Past {
    removed: Record<string, number>;
    names: { kind: string; key: string }[];
  }
  const past = async (on: typeof onA): Promise<Past[]> => {
    const document = JSON.parse(await on('--json', 'history')) as Past[];
    checkDocument(['history'], document);
    return document;
  };
  const [atB, ...moreAtB] = await past(onB);
  assert.deepEqual([atB?.removed, moreAtB], [{ content: blobs.all.size }, []]);
  assert.deepEqual(atB?.names.map(({ key }) => key).sort(), [...blobs.all.keys()].sort());
  assert.deepEqual(
    (await past(onA)).map(({ removed }) => removed),
    [{}],
  );
  const hosts = JSON.parse(await onA('--json', 'hosts', 'ls')) as { id: string; state: string }[];
  checkDocument(['hosts', 'ls'], hosts);
  const other = hosts.find(({ state }) => state === 'gone')!;
  checkDocument(['hosts', 'rm'], JSON.parse(await onA('--json', 'hosts', 'rm', other.id)));
});

test('given a daemon over etcd, when its session is older than it lasts without a renewal, then clients write and collect through it', async (t) => {
  const command = new Cli(join(await tempDir(t), 'a'), { EBBTIDE_ETCD: cluster.urls.join(',') });
  const server = command.start('serve', '--gc', 'on-request', '--etcd-session-ttl', '2');
  t.after(() => server.child.kill('SIGKILL'));
  while (!server.stderr().includes('"serving"')) {
    assert.equal(server.child.exitCode, null, server.stderr());
    await sleep(20);
  }
  await command.ok('namespaces', 'create', 'early');
  await sleep(4500);
  await command.ok('leases', 'create', 'late');
  await command.ok('gc');
  assert.doesNotMatch(server.stderr(), /"level":(40|50)/);
  server.child.kill('SIGTERM');
  assert.equal((await server.ended).code, 0);
});

test('given an etcd that is not there, when a verb runs, then one sentence says so, and no password shows', async (t) => {
  const root = join(await tempDir(t), 'root');
  const { code, stderr } = await run(
    { EBBTIDE_ETCD_PASSWORD: 'p4ss-word', EBBTIDE_ETCD_USER: 'u', EBBTIDE_DEBUG: '1' },
    ...['--root', root, '--etcd', 'http://127.0.0.1:1', 'init'],
  );
  assert.notEqual(code, 0);
  assert.match(stderr, /\(Unavailable\)/);
  assert.doesNotMatch(stderr, /p4ss/);
});

test('given one etcd, when the demo runs on two hosts, then B collects what A made and the disk is as before', async (t) => {
  const source = join(await tempDir(t), 'layout');
  const blobs = new Blobs();
  const { manifest } = await blobs.image([[{ name: 'file', text: 'x'.repeat(300_000) }]]);
  await writeFiles(source, blobs.layout([named(manifest, 'app:1')]));
  const demo = ['--json', 'demo', source, '--two-hosts', '-s', 'native'];
  const { code, stdout, stderr } = await run({ EBBTIDE_ETCD: cluster.urls.join(',') }, ...demo);
  assert.equal(code, 0, stderr);
  const { steps, problem } = JSON.parse(stdout) as {
    steps: { host: string; step: string }[];
    problem: null;
  };
  assert.equal(problem, null);
  checkDocument(['demo'], { steps, problem });
  const collected = steps.filter(({ step }) => step.startsWith('collected'));
  assert.deepEqual(
    collected.map(({ host, step }) => `${host}: ${step}`),
    [
      `B: collected, the container keeps its snapshots: removed ${blobs.all.size} content`,
      'B: collected, nothing is left: removed 2 snapshot',
    ],
  );
});

test('given no etcd, when the demo is to run on two hosts, then it says what is missing', async () => {
  const { code, stderr } = await run({}, 'demo', '--two-hosts');
  assert.notEqual(code, 0);
  assert.match(stderr, /two hosts need a shared tree[\s\S]*--etcd/);
});
