/**
 * What images take: pulls from a registry, imports, exports, unpacking and removals, each by containerd's own command line tool. The
 * tool of 1.6, which does the work itself with many calls, is asked of every server; that of 2.1 hands the work to the Transfer service, and is
 * asked of those that have it. The time includes the start of the tool.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Registry } from '../../test/conformance/registry.js';
import { environmentOf, type Release } from '../../test/conformance/releases.js';
import type { Server } from '../../test/conformance/servers.js';
import { Blobs, type MadeImage, named, tarOfFiles, writeFiles } from '../../test/images/fixtures.js';
import { median } from '../statistics.js';
import { type Figure, lower, type Take } from './figures.js';
import { cpuSeconds } from './measure.js';

const CLIENTS = 8;
const LAYERS = 8;
const FILES = 300;
const REMOVALS = 5;
const TOOL_MS_MAX = 300_000;

/** A registry with an image of 64 MiB, and one of 16 MiB for each client; the larger one also as an archive. */
export class Images implements AsyncDisposable {
  readonly #dir: string;
  readonly #registry: Registry;
  readonly manifest: string;

  private constructor(dir: string, registry: Registry, manifest: string) {
    this.#dir = dir;
    this.#registry = registry;
    this.manifest = manifest;
  }

  static async make(dir: string): Promise<Images> {
    const layout = join(dir, 'layout');
    mkdirSync(layout, { recursive: true });
    const large = new Blobs();
    const one = await imageOf(large, 'one', 8 * 2 ** 20);
    const files = large.layout([named(one.manifest, 'one')]);
    await writeFiles(layout, files);
    await writeFile(join(dir, 'one.tar'), await tarOfFiles(files));
    const tags: Record<string, string> = { one: one.manifest.digest };
    for (let n = 0; n < CLIENTS; n++) {
      const blobs = new Blobs();
      const { manifest } = await imageOf(blobs, `${n}`, 2 * 2 ** 20);
      await writeFiles(layout, blobs.layout([named(manifest, `${n}`)]));
      tags[`${n}`] = manifest.digest;
    }
    return new Images(dir, await Registry.serve(layout, tags), one.manifest.digest);
  }

  /** Figures of one server. */
  take: Take = async (server, plan, column) => {
    const rows = await this.#by('1', server, (what) => `${what}, ctr 1.6`);
    if (column === 'ebbtide' || column === 'containerd2') {
      rows.push(...(await this.#by('2', server, (what) => `${what} by Transfer, ctr 2.1`)));
    }
    return [...rows, ...(await this.#removals(server, plan.bulk))];
  };

  async #by(release: Release, server: Server, named: (what: string) => string): Promise<[Figure, number][]> {
    const rows: [Figure, number][] = [];
    const timed = async (what: string, ...commands: string[][]): Promise<void> => {
      const [started, before] = [performance.now(), cpuSeconds(server)];
      await Promise.all(commands.map((args) => ctr(server, release, args)));
      rows.push([lower(named(what), 's'), (performance.now() - started) / 1000]);
      rows.push([lower(`${named(what)}: server CPU`, 's'), cpuSeconds(server) - before]);
    };
    const reference = (tag: string): string => `${this.#registry.host}/bench:${tag}`;
    const pull = (tag: string): string[] => {
      return ['images', 'pull', '--plain-http', '--snapshotter', 'overlayfs', reference(tag)];
    };
    const remove = (...names: string[]): Promise<string> =>
      ctr(server, '1', ['images', 'rm', '--sync', ...names]);
    const clients = Array.from({ length: CLIENTS }, (_, n) => `${n}`);
    await timed(`pull of ${LAYERS} layers, 1 client`, pull('one'));
    await remove(reference('one'));
    await timed(`pull of ${LAYERS} layers each, ${CLIENTS} clients`, ...clients.map(pull));
    await remove(...clients.map(reference));
    const archive = join(this.#dir, 'one.tar');
    await timed('import', ['images', 'import', '--no-unpack', '--base-name', 'bench', archive]);
    if (release === '1') {
      const unpack = ['snapshots', '--snapshotter', 'overlayfs', 'unpack', this.manifest];
      await timed(`unpack of ${LAYERS} layers`, unpack);
    }
    const out = join(this.#dir, 'out.tar');
    await timed('export', ['images', 'export', out, 'bench:one']);
    rmSync(out);
    await remove('bench:one');
    return rows;
  }

  async #removals(server: Server, bulk: number): Promise<[Figure, number][]> {
    const names = Array.from({ length: REMOVALS }, (_, n) => `bench:remove-${n}`);
    await ctr(server, '1', [
      'images',
      'import',
      '--no-unpack',
      '--index-name',
      'bench:one',
      join(this.#dir, 'one.tar'),
    ]);
    await ctr(server, '1', ['images', 'tag', 'bench:one', ...names]);
    const times: number[] = [];
    for (const name of names) {
      const started = performance.now();
      await ctr(server, '1', ['images', 'rm', '--sync', name]);
      times.push(performance.now() - started);
    }
    await ctr(server, '1', ['images', 'rm', '--sync', 'bench:one']);
    return [[lower(`images rm --sync beside ${bulk.toLocaleString('en-US')} images`, 'ms'), median(times)]];
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#registry[Symbol.asyncDispose]();
  }
}

/** Files of which half can be compressed, the same in each run. */
function imageOf(blobs: Blobs, name: string, bytes: number): Promise<MadeImage> {
  const size = Math.floor(bytes / FILES);
  const layers = Array.from({ length: LAYERS }, (_, layer) => [
    { name: `${layer}`, type: 'directory' as const },
    ...Array.from({ length: FILES }, (_, file) => {
      const random = createHash('shake256', { outputLength: size >> 1 })
        .update(`${name} ${layer} ${file}`)
        .digest();
      return {
        name: `${layer}/${file}`,
        text: Buffer.concat([random, Buffer.alloc(size - random.length, 'text ')]),
      };
    }),
  ]);
  return blobs.image(layers);
}

async function ctr(server: Server, release: Release, args: readonly string[]): Promise<string> {
  const child = spawn('ctr', ['--address', server.address, '--namespace', 'bench', ...args], {
    ...{ env: environmentOf(release), stdio: ['ignore', 'pipe', 'pipe'] },
    ...{ timeout: TOOL_MS_MAX, killSignal: 'SIGKILL' },
  });
  let said = '';
  for (const output of [child.stdout, child.stderr]) {
    output.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-4096);
    });
  }
  const status = await new Promise<string>((resolve, reject) => {
    child.on('error', reject).on('close', (code, signal) => resolve(String(signal ?? code)));
  });
  if (status !== '0') throw new Error(`ctr ${args.join(' ')} ended with ${status}: ${said}`);
  return said;
}
