/**
 * The daemon's HTTP/2 beside other implementations, from Debian's packages: headers that Python's hpack encodes and
 * decodes, calls by its h2 with odd frames and small windows, by nghttp, and many at once by h2load.
 */
import { type SpawnSyncReturns, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { HeaderDecoder } from '../../../src/server/http2/header-decoder.js';
import { HeaderEncoder, knownField, literalField } from '../../../src/server/http2/header-encoder.js';
import { message } from '../../server/http2/peer.js';
import { Random } from '../../support/random.js';
import type { Check } from '../report.js';
import { Server } from '../servers.js';

export const http2Packages = ['python3-h2', 'python3-hpack', 'nghttp2-client'] as const;

const python = '/usr/bin/python3';
const script = fileURLToPath(new URL('../../../../test/conformance/http2/peer.py', import.meta.url));
const INFO = '/containerd.services.content.v1.Content/Info';
const grpcHeaders = ['content-type: application/grpc', 'te: trailers', 'containerd-namespace: test'];
const CALLS = 20_000;

export async function checkHttp2(dir: string, seed: number): Promise<Check[]> {
  await using server = await Server.start('ebbtide', { dir });
  const body = join(dir, 'body');
  const digest = `sha256:${'1'.repeat(64)}`;
  writeFileSync(body, message(Buffer.from(`\n\x47${digest}`)));
  await using loopback = await Loopback.open(server.address);
  return [
    { name: `headers of Python's hpack, decoded here, seed ${seed}`, wrong: decodeTheirs(seed) },
    { name: `headers of ours, decoded by Python's hpack, seed ${seed}`, wrong: decodedByThem(seed) },
    {
      name: "3,000 calls by Python's h2: small windows, padding, priorities, frames of a byte",
      wrong: await byH2(server.address, seed),
    },
    { name: 'a call by nghttp', wrong: await byNghttp(loopback.url, body, digest) },
    {
      name: `${CALLS} calls by h2load, 10 connections, 100 at once`,
      wrong: await byH2load(loopback.url, body),
    },
  ];
}

const failed = ({
  status,
  stdout,
  stderr,
}: Pick<SpawnSyncReturns<string>, 'status' | 'stdout' | 'stderr'>): string =>
  status === 0 ? '' : `ended with ${status}: ${stdout}${stderr}`.slice(-500);

function decodeTheirs(seed: number): string {
  const run = spawnSync(python, [script, 'encode', String(seed), '3000'], {
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  if (run.status !== 0) return failed(run);
  const decoder = new HeaderDecoder(2 ** 24);
  for (const [i, line] of run.stdout.trim().split('\n').entries()) {
    const { fields, block } = JSON.parse(line) as { fields: [string, string][]; block: string };
    const found = decoder.decode(Buffer.from(block, 'hex')).fields.map(({ name, value }) => [name, value]);
    if (JSON.stringify(found) !== JSON.stringify(fields))
      return `list ${i} came out as ${JSON.stringify(found)}`;
  }
  return '';
}

function decodedByThem(seed: number): string {
  const random = new Random(seed);
  const encoder = new HeaderEncoder();
  const known = Array.from({ length: 8 }, (_, i) => [`k-${i}`, 'v'.repeat(i * 20)] as const);
  const taught = known.map(([name, value]) => knownField(name, value));
  const wanted: (readonly [string, string])[][] = [];
  const lines: string[] = [];
  for (let n = 0; n < 2000; n++) {
    if (n === 1500) {
      lines.push(JSON.stringify({ size: 0 }));
      encoder.limitTable(0);
    }
    const fields: (readonly [string, string])[] = [];
    const parts = Array.from({ length: 1 + random.int(6) }, () => {
      const i = random.int(known.length);
      if (random.int(2) === 0) {
        fields.push(known[i]!);
        return taught[i]!;
      }
      const value = String.fromCharCode(...Array.from({ length: random.int(300) }, () => random.int(256)));
      fields.push(['x', value]);
      return literalField('x', value);
    });
    wanted.push(fields);
    lines.push(JSON.stringify({ block: encoder.encode(parts).toString('hex') }));
  }
  const input = `${lines.join('\n')}\n`;
  const run = spawnSync(python, [script, 'decode'], { encoding: 'utf8', input, maxBuffer: 2 ** 28 });
  if (run.status !== 0) return failed(run);
  const found = run.stdout.trim().split('\n');
  const at = wanted.findIndex(
    (fields, i) => JSON.stringify(fields) !== JSON.stringify(JSON.parse(found[i]!)),
  );
  return at < 0 ? '' : `block ${at} came out as ${found[at]}`;
}

/** Not by spawnSync: this process stands between the two. */
async function run(
  command: string,
  args: readonly string[],
): Promise<{ status: number; stdout: string; stderr: string }> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: 120_000 });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => {
    stdout += chunk.toString('latin1');
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString('latin1');
  });
  const [status] = (await once(child, 'close')) as [number | null];
  return { status: status ?? -1, stdout, stderr };
}

const byH2 = async (address: string, seed: number): Promise<string> =>
  failed(await run(python, [script, 'client', address, String(seed), '3000']));

async function byNghttp(url: string, body: string, digest: string): Promise<string> {
  const headers = grpcHeaders.flatMap((header) => ['-H', header]);
  const end = await run('nghttp', ['-v', '-n', ...headers, '-d', body, `${url}${INFO}`]);
  if (end.status !== 0) return failed(end);
  return end.stdout.includes(digest) && /grpc-status: 5/.test(end.stdout)
    ? ''
    : `no result in:\n${end.stdout.slice(-800)}`;
}

async function byH2load(url: string, body: string): Promise<string> {
  const headers = grpcHeaders.flatMap((header) => ['-H', header]);
  const args = ['-n', String(CALLS), '-c', '10', '-m', '100', '-d', body, ...headers, `${url}${INFO}`];
  const end = await run('h2load', args);
  if (end.status !== 0) return failed(end);
  return end.stdout.includes(`${CALLS} succeeded, 0 failed, 0 errored`) ? '' : end.stdout.slice(-600);
}

/** A port of the loopback in front of a unix socket, for programs that know no unix sockets. */
class Loopback implements AsyncDisposable {
  readonly #server = createServer();
  readonly url: string;

  private constructor(port: number, server: ReturnType<typeof createServer>) {
    this.#server = server;
    this.url = `http://127.0.0.1:${port}`;
  }

  static async open(path: string): Promise<Loopback> {
    const server = createServer((near) => {
      const far = connect(path);
      near.on('error', () => far.destroy());
      far.on('error', () => near.destroy());
      near.pipe(far).pipe(near);
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
    return new Loopback((server.address() as { port: number }).port, server);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.close();
  }
}
