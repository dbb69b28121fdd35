/** The daemon as a service of systemd: sockets that it is given, what it reports, what a reload changes. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, lstatSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { datagramSupported, sendDatagram } from '../../src/system/datagram.js';
import { missingTools } from '../support/debian.js';
import { tempDir } from '../support/temp.js';
import { TestClient } from './client.js';

const MAIN = fileURLToPath(new URL('../../src/bundle/main.js', import.meta.url));

/** A process that is killed with the test; what it prints on standard output and error. */
function run(t: TestContext, command: string, args: string[], env: Record<string, string> = {}) {
  const child: ChildProcess = spawn(command, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let printed = '';
  for (const stream of [child.stdout!, child.stderr!])
    stream.on('data', (chunk: Buffer) => {
      printed += chunk.toString();
    });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  t.after(() => {
    child.kill('SIGKILL');
    return ended;
  });
  const until = async (done: (text: string) => boolean): Promise<string> => {
    while (!done(printed)) {
      if (child.exitCode !== null) throw new Error(`${command} has ended: ${printed}`);
      await sleep(20);
    }
    return printed;
  };
  return { child, ended, until, printed: () => printed };
}

/** What systemd would read: a line for each message. */
async function systemd(t: TestContext, path: string) {
  const script =
    'import socket,sys\ns=socket.socket(socket.AF_UNIX,socket.SOCK_DGRAM)\ns.bind(sys.argv[1])\n' +
    'while True: print(s.recv(4096).decode().strip().replace("\\n",";"),flush=True)';
  const heard = run(t, 'python3', ['-c', script, path]);
  while (!existsSync(path)) await sleep(10);
  return heard;
}

async function answers(t: TestContext, address: string, id: string): Promise<void> {
  const client = new TestClient(address);
  t.after(() => client.close());
  await client.call('leases', 'Create', { id });
  client.close();
}

test('given a configuration that changes, when the daemon is reloaded, then it takes over what it can, and systemd is notified', async (t) => {
  const directory = await tempDir(t);
  const [notify, config, root] = ['notify', 'config.json', 'root'].map((name) => join(directory, name));
  const write = (content: object): void => writeFileSync(config!, JSON.stringify(content));
  write({ gc: 'on-request' });
  const heard = await systemd(t, notify!);
  const address = join(directory, 'e.sock');
  const daemon = run(
    t,
    process.execPath,
    [MAIN, 'serve', '--root', root!, '--address', address, '--config', config!],
    { NOTIFY_SOCKET: notify!, WATCHDOG_USEC: '100000' },
  );
  const serving = await heard.until((text) => text.includes('READY=1'));
  assert.ok(serving.includes(`READY=1;STATUS=serving ${root} on ${address}`), serving);
  if (datagramSupported) await heard.until((text) => text.split('WATCHDOG=1').length > 3);

  // Nothing collects by itself.
  await answers(t, address, 'before');
  assert.doesNotMatch(daemon.printed(), /"collected"/);
  write({ gc: 'scheduled', logLevel: 'debug', limits: { helloMs: 5000, connections: 7 }, metrics: '9' });
  daemon.child.kill('SIGHUP');
  const log = await daemon.until((text) => text.includes('"collected"') && text.includes('"fields"'));
  assert.match(log, /"changed":\["gc","logLevel","limits.helloMs"\]/);
  assert.match(log, /"fields":\["metrics","limits.connections"\]/);
  await heard.until((text) => /RELOADING=1;MONOTONIC_USEC=\d+\n(WATCHDOG=1\n)*READY=1/.test(text));

  write({ gc: 'never' });
  daemon.child.kill('SIGHUP');
  await daemon.until((text) => text.includes('the last one stays in effect'));
  await answers(t, address, 'after');
  daemon.child.kill('SIGTERM');
  assert.equal(await daemon.ended, 0);
  await heard.until((text) => text.includes('STOPPING=1'));
});

test('given sockets that systemd listens on, when a client connects, then the daemon serves on them, and leaves them', {
  skip: missingTools(['systemd-socket-activate']) ?? false,
}, async (t) => {
  const directory = await tempDir(t);
  const [main, proxy, root] = ['e.sock', 'p.sock', 'root'].map((name) => join(directory, name));
  const listen = ['-l', main!, '-l', proxy!, '--fdname=ebbtide:proxy', '-E', 'PATH'];
  const serve = [process.execPath, MAIN, 'serve', '--root', root!, '--log-level', 'debug'];
  const daemon = run(t, 'systemd-socket-activate', [...listen, ...serve]);
  while (![main, proxy].every((path) => existsSync(path!))) await sleep(20);
  const inodes = [main, proxy].map((path) => lstatSync(path!).ino);
  await answers(t, main!, 'by-activation');
  const log = await daemon.until((text) => text.includes('"serving"'));
  assert.ok(log.includes(`"address":"${main}","proxy":"${proxy}"`), log);
  const proxied = new TestClient(proxy!);
  t.after(() => proxied.close());
  await once(proxied.stream('content', 'List').resume(), 'end');
  proxied.close();
  daemon.child.kill('SIGTERM');
  assert.equal(await daemon.ended, 0);
  assert.deepEqual(
    [main, proxy].map((path) => lstatSync(path!).ino),
    inodes,
  );
});

test('given a socket that is not what a daemon serves on, when systemd passes it, then one sentence says so', {
  skip: missingTools(['systemd-socket-activate']) ?? false,
}, async (t) => {
  const directory = await tempDir(t);
  const path = join(directory, 'datagrams');
  const listen = ['--datagram', '-l', path, '-E', 'PATH'];
  const daemon = run(t, 'systemd-socket-activate', [
    ...listen,
    process.execPath,
    MAIN,
    'serve',
    '--root',
    join(directory, 'root'),
  ]);
  while (!existsSync(path)) await sleep(20);
  if (datagramSupported) assert.equal(sendDatagram(path, 'hello'), undefined);
  else daemon.child.kill('SIGKILL');
  const code = await daemon.ended;
  if (datagramSupported) {
    assert.equal(code, 5);
    assert.match(daemon.printed(), /descriptor 3 that systemd passed is not a listening unix socket/);
  }
  rmSync(path, { force: true });
});
