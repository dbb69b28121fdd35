/**
 * containerd's own clients on large layers: everything that reads content by many calls that are given up when they have
 * what they want. The Go program of test/server/reader in pieces of several sizes, on one thread and on many, and `ctr`:
 * content get, export, conversion and diff; round after round over one daemon.
 */
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildGo } from './go-programs.js';
import { Server, type Side } from './servers.js';

export interface ClientCheck {
  flow: string;
  rounds: number;
  passed: number;
  /** Of the first round that failed. */
  wrong: string;
}

const KiB = 1024;
const PIECES = [4 * KiB, 32 * KiB, 1024 * KiB];
const FLOW_MS_MAX = 300_000;
const IMAGE = 'example.com/large:1';

export async function runClients(
  side: Side,
  dir: string,
  bytes: number,
  rounds: number,
): Promise<ClientCheck[]> {
  await using server = await Server.start(side, { dir });
  const work = join(dir, 'work');
  mkdirSync(work);
  const layer = randomBytes(bytes);
  const layout = writeArchive(work, layer);
  const digest = layout.layer;
  const env = {
    ...process.env,
    CONTAINERD_ADDRESS: server.address,
    CONTAINERD_NAMESPACE: 'test',
    WORK: work,
  };
  const sh = (script: string, more: NodeJS.ProcessEnv = {}): Promise<string> =>
    run('sh', ['-ec', script], { ...env, ...more });
  const imported = await sh(`ctr images import --snapshotter native "$WORK/image.tar"`);
  if (imported !== '') throw new Error(`the image could not be imported: ${imported}`);
  const program = buildGo('test/server/reader', 'program');
  const size = layout.layerBytes;
  const flows: [string, () => Promise<string>][] = [];
  for (const threads of ['1', '2']) {
    for (const piece of PIECES) {
      const args = [`-address=${server.address}`, `-digest=${digest}`, `-size=${size}`, `-piece=${piece}`];
      const name = `ReaderAt, pieces of ${piece / KiB} KiB, GOMAXPROCS=${threads}`;
      flows.push([name, () => run(program, args, { ...env, GOMAXPROCS: threads }, digest)]);
    }
  }
  flows.push(
    [
      'ctr content get',
      () => sh(`test "$(ctr content get ${digest} | sha256sum)" = "${digest.slice(7)}  -"`),
    ],
    [
      'ctr images export',
      () =>
        sh(
          `ctr images export "$WORK/out.tar" ${IMAGE}; tar -xOf "$WORK/out.tar" blobs/sha256/${digest.slice(7)} | sha256sum | grep -q ${digest.slice(7)}`,
        ),
    ],
    [
      'ctr images convert',
      () =>
        sh(
          `ctr images convert --oci ${IMAGE} example.com/converted:1; ctr images rm example.com/converted:1`,
        ),
    ],
    [
      'ctr snapshots diff',
      () => sh(`ctr snapshots --snapshotter native diff ${layout.diffId} | tar -tz | grep -q large`),
    ],
  );
  const checks: ClientCheck[] = flows.map(([flow]) => ({ flow, rounds, passed: 0, wrong: '' }));
  for (let round = 0; round < rounds; round++) {
    for (const [i, [, flow]] of flows.entries()) {
      const wrong = await flow();
      if (wrong === '') checks[i]!.passed++;
      else checks[i]!.wrong ||= `round ${round + 1}: ${wrong}`;
    }
  }
  return checks;
}

/** '' when it ended well, and said what was expected. */
async function run(
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  expected?: string,
): Promise<string> {
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'pipe'], timeout: FLOW_MS_MAX });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => {
    stdout = `${stdout}${chunk.toString('latin1')}`.slice(-1000);
  });
  child.stderr.on('data', (chunk: Buffer) => {
    stderr = `${stderr}${chunk.toString('latin1')}`.slice(-1000);
  });
  const [code, signal] = (await once(child, 'close')) as [number | null, string | null];
  if (code !== 0) return `${signal ?? code}: ${stderr}`;
  return expected === undefined || stdout.trim() === expected ? '' : `said ${stdout}`;
}

const digestOf = (bytes: Buffer): string => `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** An OCI archive of one image, whose only layer has one large file. */
function writeArchive(dir: string, content: Buffer): { layer: string; layerBytes: number; diffId: string } {
  const layer = tar([['large', content]]);
  const diffId = digestOf(layer);
  const config = Buffer.from(
    JSON.stringify({
      architecture: process.arch === 'x64' ? 'amd64' : process.arch,
      os: 'linux',
      rootfs: { type: 'layers', diff_ids: [diffId] },
      config: {},
    }),
  );
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      config: {
        mediaType: 'application/vnd.oci.image.config.v1+json',
        digest: digestOf(config),
        size: config.length,
      },
      layers: [{ mediaType: 'application/vnd.oci.image.layer.v1.tar', digest: diffId, size: layer.length }],
    }),
  );
  const index = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      manifests: [
        {
          mediaType: 'application/vnd.oci.image.manifest.v1+json',
          digest: digestOf(manifest),
          size: manifest.length,
          annotations: { 'io.containerd.image.name': IMAGE },
        },
      ],
    }),
  );
  const blob = (bytes: Buffer): [string, Buffer] => [`blobs/sha256/${digestOf(bytes).slice(7)}`, bytes];
  const files: [string, Buffer][] = [
    ['oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}')],
    ['index.json', index],
    ...[manifest, config, layer].map(blob),
  ];
  writeFileSync(join(dir, 'image.tar'), tar(files));
  return { layer: diffId, layerBytes: layer.length, diffId };
}

function tar(files: readonly (readonly [string, Buffer])[]): Buffer {
  const blocks = files.flatMap(([name, bytes]) => {
    const head = Buffer.alloc(512);
    head.write(name, 0);
    head.write('0000644\0' + '0000000\0' + '0000000\0', 100);
    head.write(`${bytes.length.toString(8).padStart(11, '0')}\0${'0'.repeat(11)}\0        0`, 124);
    head.write('ustar\0' + '00', 257);
    const sum = head.reduce((a, b) => a + b, 0);
    head.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
    return [head, bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)];
  });
  return Buffer.concat([...blocks, Buffer.alloc(1024)]);
}
