/**
 * The command line tool of one release, at work on a server that is killed at times: imports, tags and removals of images. What it
 * reported as done has to be so in the end. Used by ../load.ts.
 */
import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Blobs, named, tarOfFiles } from '../../images/fixtures.js';
import type { KindReport, LoadReport } from '../load.js';
import { environmentOf, type Release } from '../releases.js';
import type { Server } from '../servers.js';

interface Done {
  status: number | null;
  stdout: string;
  stderr: string;
}

const CALL_MS_MAX = 120_000;
/** More images than these are removed. */
const LIVE = 12;
/** After a restart, until a command that failed may have had to do with it. */
const SETTLED_MS = 3000;

export class CtrSession {
  /** The server is killed now, or is not back. */
  #isDown = false;
  #lastUp = 0;
  readonly #server: Server;
  readonly #release: Release;
  readonly #archive: string;
  readonly #kinds = new Map<string, { times: number[]; unknown: number }>();
  readonly #faults: string[] = [];
  /** As acknowledged; an image whose fate is not known is in neither. */
  readonly #live = new Set<string>();
  readonly #gone = new Set<string>();

  constructor(server: Server, dir: string, release: Release) {
    this.#server = server;
    this.#release = release;
    this.#archive = join(dir, `ctr-${release}.tar`);
    mkdirSync(dir, { recursive: true });
  }

  set isDown(value: boolean) {
    this.#isDown = value;
    if (!value) this.#lastUp = Date.now();
  }

  async work(signal: AbortSignal): Promise<void> {
    const blobs = new Blobs();
    const layer = (n: number) => [{ name: `${this.#release}-${n}`, text: `layer ${n}`.repeat(2000) }];
    const { manifest } = await blobs.image([layer(1), layer(2), layer(3)]);
    writeFileSync(this.#archive, await tarOfFiles(blobs.layout([named(manifest, 'small')])));
    for (let n = 0; !signal.aborted; n++) {
      const name = `example.com/ctr-${this.#release}/${n}:1`;
      if (
        await this.#do('import', name, [
          'import',
          '--index-name',
          name,
          '--snapshotter',
          'overlayfs',
          this.#archive,
        ])
      )
        this.#live.add(name);
      const tag = `example.com/ctr-${this.#release}/${n}:tag`;
      if (this.#live.has(name) && n % 3 === 0 && (await this.#do('tag', tag, ['tag', name, tag])))
        this.#live.add(tag);
      const [oldest] = this.#live;
      if (oldest === undefined || this.#live.size <= LIVE) continue;
      this.#live.delete(oldest);
      if (await this.#do('rm', oldest, ['rm', oldest])) this.#gone.add(oldest);
    }
  }

  /** What was acknowledged, compared with what the server has. */
  async verify(): Promise<Omit<LoadReport, 'restartMs'>> {
    const checked = await this.#ctr(['check']);
    const rows = checked.stdout.split('\n').map((row) => row.trim().split(/\s+/));
    const complete = new Set(rows.filter((row) => row[3] === 'complete').map(([name]) => name));
    const listed = new Set((await this.#ctr(['ls', '-q'])).stdout.split('\n'));
    for (const name of this.#live) {
      if (!listed.has(name)) this.#faults.push(`ctr ${this.#release}: image ${name}: not found`);
      else if (!complete.has(name)) this.#faults.push(`ctr ${this.#release}: image ${name} is not complete`);
    }
    for (const name of this.#gone) {
      if (listed.has(name))
        this.#faults.push(`ctr ${this.#release}: image ${name} was removed, yet is there`);
    }
    const kinds = [...this.#kinds].map(([kind, { times, unknown }]): [string, KindReport] => {
      const at = (q: number): number => times[Math.floor(q * (times.length - 1))] ?? 0;
      times.sort((a, b) => a - b);
      return [kind, { acknowledged: times.length, unknown, p50Ms: at(0.5), p99Ms: at(0.99), maxMs: at(1) }];
    });
    return {
      ...{ kills: 0, kinds: Object.fromEntries(kinds), left: null },
      ...{
        verified: this.#live.size + this.#gone.size,
        faults: this.#faults,
        faultCount: this.#faults.length,
      },
    };
  }

  /** Whether it was acknowledged. */
  async #do(what: string, name: string, args: readonly string[]): Promise<boolean> {
    const kind = `ctr images ${what}`;
    const kinds = this.#kinds.get(kind) ?? { times: [], unknown: 0 };
    this.#kinds.set(kind, kinds);
    const started = Date.now();
    const wasDown = this.#isDown || started - this.#lastUp < SETTLED_MS;
    const { status, stderr } = await this.#ctr(args);
    if (status === 0) {
      kinds.times.push(Date.now() - started);
      return true;
    }
    kinds.unknown++;
    const isDown = this.#isDown || this.#lastUp > started;
    if (!wasDown && !isDown) this.#faults.push(`ctr ${this.#release}, ${what} of ${name}: ${stderr.trim()}`);
    await sleep(200);
    return false;
  }

  #ctr(args: readonly string[]): Promise<Done> {
    const all = ['--address', this.#server.address, '--namespace', `ctr-${this.#release}`, 'images', ...args];
    const child = spawn('ctr', all, {
      ...{ env: environmentOf(this.#release), stdio: ['ignore', 'pipe', 'pipe'] },
      ...{ timeout: CALL_MS_MAX, killSignal: 'SIGKILL' },
    });
    const done: Done = { status: null, stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      done.stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      done.stderr += text;
    });
    return new Promise((resolve) => {
      child.on('error', (error) => resolve({ ...done, stderr: error.message }));
      child.on('close', (status) => resolve({ ...done, status }));
    });
  }
}
