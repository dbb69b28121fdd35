import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { digestOf } from '../../src/model/digest.js';
import { tempDir } from '../support/db.js';
import { TestClient } from './client.js';
import { code } from './world.js';

const MAIN = fileURLToPath(new URL('../../src/bundle/main.js', import.meta.url));

interface Server {
  child: ChildProcess;
  stderr(): string;
  ended: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
}

interface Options {
  umask?: string;
  env?: Record<string, string>;
}

/** `ebbtide serve` as a process of its own. */
function start(t: TestContext, args: string[], { umask = '022', env = {} }: Options = {}): Server {
  const script = `umask ${umask}; exec "$@"`;
  const child = spawn('sh', ['-c', script, 'sh', process.execPath, MAIN, 'serve', ...args], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const parts: Buffer[] = [];
  child.stderr?.on('data', (chunk: Buffer) => parts.push(chunk));
  const ended = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>((resolve) => {
    child.on('close', (exit, signal) => resolve({ code: exit, signal }));
  });
  t.after(() => {
    child.kill('SIGKILL');
    return ended;
  });
  return { child, stderr: () => Buffer.concat(parts).toString(), ended };
}

/** Waits until a server accepts connections, or the server has ended. */
async function serving(server: Server, address: string): Promise<void> {
  for (;;) {
    const up = await new Promise<boolean>((resolve) => {
      const socket = connect(address, () => {
        socket.destroy();
        resolve(true);
      });
      socket.on('error', () => resolve(false));
    });
    if (up) return;
    if (server.child.exitCode !== null) throw new Error(`the server has ended: ${server.stderr()}`);
    await sleep(20);
  }
}

function client(t: TestContext, address: string): TestClient {
  const made = new TestClient(address);
  t.after(() => made.close());
  return made;
}

const mode = (path: string): string => (statSync(path).mode & 0o777).toString(8);
const image = (name: string, digest: string) => ({
  image: { name, labels: {}, target: { mediaType: 'a/b', digest, size: 1 } },
});

test('the socket is for owner and group in a directory that others may only pass, whatever the umask', async (t) => {
  for (const umask of ['000', '077']) {
    const directory = await tempDir(t, 'ebbtide-daemon-');
    const address = join(directory, 'run', 'deep', 'e.sock');
    const server = start(t, ['--root', join(directory, 'root'), '--address', address], { umask });
    await serving(server, address);
    assert.deepEqual([mode(address), mode(join(directory, 'run', 'deep'))], ['660', '711'], umask);
    server.child.kill('SIGTERM');
    assert.deepEqual(await server.ended, { code: 0, signal: null });
    assert.equal(existsSync(address), false);
  }
});

test('a root has one daemon, and so has a socket', async (t) => {
  const directory = await tempDir(t, 'ebbtide-daemon-');
  const [root, other] = [join(directory, 'root'), join(directory, 'other')];
  const address = join(directory, 'e.sock');
  const first = start(t, ['--root', root, '--address', address]);
  await serving(first, address);

  const sameRoot = start(t, ['--root', root, '--address', join(directory, 'f.sock')]);
  assert.equal((await sameRoot.ended).code, 6);
  assert.match(sameRoot.stderr(), /in use by process \d+ \(/);
  const sameSocket = start(t, ['--root', other, '--address', address]);
  assert.equal((await sameSocket.ended).code, 6);
  assert.match(sameSocket.stderr(), /another daemon listens/);
  writeFileSync(join(directory, 'file'), 'mine');
  const file = start(t, ['--root', other, '--address', join(directory, 'file')]);
  assert.equal((await file.ended).code, 5);
  assert.match(file.stderr(), /is not a socket/);
  // The first has noticed nothing.
  assert.deepEqual((await client(t, address).call('namespaces', 'List')).namespaces, []);
});

test('after kill -9 the next daemon takes the stale socket and has everything that was acknowledged', async (t) => {
  const directory = await tempDir(t, 'ebbtide-daemon-');
  const address = join(directory, 'e.sock');
  const args = ['--root', join(directory, 'root'), '--address', address, '--gc', 'on-request'];
  const data = Buffer.alloc(300_000, 'x');
  const digest = digestOf(data);

  const first = start(t, args);
  await serving(first, address);
  const before = client(t, address);
  await before.ingest('r', data, digest);
  for (let i = 0; i < 20; i++) await before.call('images', 'Create', image(`i${i}`, digest));
  const half = before.write();
  await half.ask({ ref: 'half', total: 1000 });
  await half.ask({ action: 1, data: Buffer.alloc(400) });
  half.call.on('error', () => undefined);
  first.child.kill('SIGKILL');
  assert.deepEqual(await first.ended, { code: null, signal: 'SIGKILL' });
  assert.equal(existsSync(address), true);

  const second = start(t, args);
  await serving(second, address);
  const after = client(t, address);
  assert.equal((await after.call('images', 'List')).images.length, 20);
  assert.deepEqual(await after.read(digest), data);
  const resumed = after.write();
  assert.equal((await resumed.ask({ ref: 'half', total: 1000 })).offset, 400);
  await resumed.end();
  // The client that was there before reconnects by itself.
  await new Promise<void>((resolve, reject) => {
    before.grpc.waitForReady(Date.now() + 10_000, (error) => (error ? reject(error) : resolve()));
  });
  assert.equal((await before.call('images', 'List')).images.length, 20);
});

test('at SIGTERM open calls may end, what never ends is ended, and what hangs is aborted in time', async (t) => {
  const directory = await tempDir(t, 'ebbtide-daemon-');
  const config = join(directory, 'config.json');
  writeFileSync(config, JSON.stringify({ limits: { shutdownMs: 2000 }, gc: 'on-request' }));
  for (const finishes of [true, false]) {
    const address = join(directory, 'e.sock');
    const server = start(t, ['--root', join(directory, 'root'), '--address', address, '--config', config]);
    await serving(server, address);
    const user = client(t, address);
    const data = Buffer.from(`written ${finishes}`);
    const stream = user.write();
    await stream.ask({ ref: `r${finishes}` });
    await stream.ask({ action: 1, data });
    const subscription = user.stream('events', 'Subscribe', { filters: [] });
    const subscriptionEnd = once(subscription, 'error') as Promise<[Error & { code: number }]>;
    subscription.resume();
    await user.call('events', 'Publish', { topic: '/x', event: { typeUrl: 't', value: Buffer.of(1) } });

    server.child.kill('SIGTERM');
    assert.equal((await subscriptionEnd)[0].code, code.unavailable);
    if (finishes) {
      // The open stream goes on and gets its response.
      const digest = digestOf(data);
      const response = await stream.ask({
        action: 2,
        offset: data.length,
        total: data.length,
        expected: digest,
      });
      assert.equal(response.digest, digest);
      await stream.end();
    } else {
      stream.call.on('error', () => undefined);
    }
    assert.deepEqual(await server.ended, { code: 0, signal: null });
    assert.match(server.stderr(), finishes ? /"stopped"/ : /open calls were aborted/);
    assert.equal(existsSync(address), false);
  }
});

test('metrics and health are served; collections are counted', async (t) => {
  const directory = await tempDir(t, 'ebbtide-daemon-');
  const address = join(directory, 'e.sock');
  const server = start(t, [
    '--root',
    join(directory, 'root'),
    '--address',
    address,
    '--metrics',
    '127.0.0.1:0',
    // Else one by schedule could come between two looks.
    '--gc',
    'on-request',
  ]);
  await serving(server, address);
  const user = client(t, address);
  const data = Buffer.from('garbage');
  await user.ingest('r', data, digestOf(data));
  await user.call('leases', 'Create', { id: 'l' });
  await user.call('leases', 'Delete', { id: 'l', sync: true });
  while (!server.stderr().includes('"serving"')) await sleep(10);
  const serving_ = server
    .stderr()
    .split('\n')
    .find((line) => line.includes('"serving"'));
  const { metrics } = JSON.parse(serving_ ?? '{}') as { metrics: string };
  const health = await fetch(`http://${metrics}/healthz`);
  assert.deepEqual([health.status, await health.text()], [200, 'ok\n']);
  const page = await (await fetch(`http://${metrics}/metrics`)).text();
  const value = (line: string): number =>
    Number(
      page
        .split('\n')
        .find((l) => l.startsWith(line))
        ?.split(' ')
        .at(-1),
    );
  assert.equal(value('ebbtide_removed_total{kind="content"}'), 1);
  assert.equal(value('ebbtide_collections_total{outcome="ok"}') >= 1, true);
  // A client may ask for collections with options of its own.
  const before = value('ebbtide_collections_total{outcome="ok"}');
  await user.all('ebbtide', 'Collect', { dryRun: true });
  await user.all('ebbtide', 'Collect', {});
  const after = await (await fetch(`http://${metrics}/metrics`)).text();
  assert.ok(after.includes(`ebbtide_collections_total{outcome="ok"} ${before + 1}\n`));
  const deletes = 'service="containerd.services.leases.v1.Leases",method="Delete"';
  assert.equal(value(`ebbtide_operations_total{${deletes},code="OK"}`), 1);
  assert.equal(value(`ebbtide_operation_seconds_count{${deletes}}`), 1);
  for (const name of [
    'ebbtide_collection_pause_seconds_count',
    'ebbtide_freed_bytes_total',
    'ebbtide_records',
    'ebbtide_file_bytes',
    'ebbtide_journal_bytes',
    'ebbtide_commit_log_bytes',
    'ebbtide_garbage_age_seconds',
    'ebbtide_garbage_blob_bytes',
    'ebbtide_marks_checks_total{outcome="wrong"}',
    'ebbtide_connections',
  ]) {
    assert.equal(Number.isFinite(value(name)), true, name);
  }
  assert.equal((await fetch(`http://${metrics}/nosuch`)).status, 404);
});

test('a wrong option or config is named before anything is made', async (t) => {
  const directory = await tempDir(t, 'ebbtide-daemon-');
  const root = join(directory, 'root');
  mkdirSync(join(directory, 'd'));
  const refuse = async (text: string, wanted: RegExp): Promise<void> => {
    const config = join(directory, 'd', 'config.json');
    writeFileSync(config, text);
    const server = start(t, ['--root', root, '--config', config]);
    assert.equal((await server.ended).code, 2, server.stderr());
    assert.match(server.stderr(), wanted);
  };
  await refuse('{"adress": "x"}', /unknown field "adress"/);
  await refuse('{', /is not JSON/);
  await refuse('{"limits": {"ingestBytes": -1}}', /limit ingestBytes is -1/);
  await refuse('{"limits": {"nosuch": 1}}', /unknown limit "nosuch"/);
  await refuse('{"gc": "never"}', /option gc is "never"/);
  await refuse('{"scheduler": {"startupDelay": "soon"}}', /startupDelay/);
  const long = start(t, ['--root', root, '--address', join(directory, 'x'.repeat(120))]);
  assert.equal((await long.ended).code, 2);
  assert.match(long.stderr(), /longer than 107 bytes/);
});
