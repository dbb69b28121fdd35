/** Hosts as processes (host-program.ts): started, spoken to, stopped and killed by the tests of this folder. */
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { EtcdConfig } from '../../src/engine/etcd/client/options.js';
import type { Ack, ProgramOptions } from './host-program.js';
import { spawnMortal } from './mortal.js';
import type { Place } from './network.js';
import { LoopbackProxy } from './proxy.js';
import { type Cluster, stopped } from './servers.js';

const PROGRAM = fileURLToPath(new URL('./host-program.js', import.meta.url));

export interface Report {
  did: string;
  ops: number;
  runs: number;
  removed: number;
  failures: number;
  recent: string[];
  errors: string[];
}

export class HostProcess {
  readonly name: string;
  readonly proxies: readonly LoopbackProxy[];
  readonly acksFile: string;
  readonly #etcd: EtcdConfig;
  readonly #dir: string;
  readonly #more: Partial<ProgramOptions>;
  /** Where it runs, if that is not the network of the test. */
  readonly place: Place | undefined;
  #child: ChildProcess | undefined;
  #results: ((line: string) => void)[] = [];
  #starts = 0;

  constructor(
    name: string,
    dir: string,
    etcd: EtcdConfig,
    proxies: readonly LoopbackProxy[],
    more: Partial<ProgramOptions>,
    place?: Place,
  ) {
    this.name = name;
    this.proxies = proxies;
    this.place = place;
    this.acksFile = join(dir, `${name}.acks`);
    this.#dir = dir;
    const hosts = place === undefined ? proxies.map(({ url }) => url) : etcd.hosts;
    this.#etcd = { ...etcd, hosts, hostId: name };
    this.#more = more;
  }

  static async make(
    cluster: Cluster,
    name: string,
    dir: string,
    etcd: EtcdConfig,
    more: Partial<ProgramOptions> = {},
  ): Promise<HostProcess> {
    const proxies = await Promise.all(cluster.urls.map((url) => LoopbackProxy.start(url)));
    return new HostProcess(name, dir, etcd, proxies, more);
  }

  /** A host in a place of a network, which speaks to the members itself. */
  static at(
    place: Place,
    name: string,
    dir: string,
    etcd: EtcdConfig,
    more: Partial<ProgramOptions> = {},
  ): HostProcess {
    return new HostProcess(name, dir, etcd, [], more, place);
  }

  get pid(): number {
    return this.#child?.pid ?? -1;
  }

  async start(): Promise<void> {
    const options: ProgramOptions = {
      name: this.name,
      // A mirror on disk goes on from where a kill left it; one in memory begins empty.
      root: join(this.#dir, this.name),
      etcd: this.#etcd,
      acks: this.acksFile,
      writers: 3,
      collect: true,
      seed: ++this.#starts * 7919 + this.name.length,
      ...this.#more,
    };
    const child = spawnMortal(
      process.execPath,
      [PROGRAM, JSON.stringify(options)],
      { stdio: ['pipe', 'pipe', 'inherit'] },
      this.place?.command,
    );
    child.stdin?.on('error', () => undefined);
    this.#child = child;
    this.#results = [];
    createInterface({ input: child.stdout! }).on('line', (line) => this.#results.shift()?.(line));
    await this.ask('hello');
  }

  /** Sends a word; resolves with the result. Rejects when the process ends instead. */
  ask<T = Report>(word: string): Promise<T> {
    const child = this.#child;
    if (child === undefined) return Promise.reject(new Error(`${this.name} is not running`));
    return new Promise((resolve, reject) => {
      const ended = (): void => reject(new Error(`${this.name} ended while asked to ${word}`));
      child.once('exit', ended);
      this.#results.push((line) => {
        child.off('exit', ended);
        resolve(JSON.parse(line) as T);
      });
      child.stdin?.write(`${word}\n`);
    });
  }

  async pause(): Promise<void> {
    this.#child?.kill('SIGSTOP');
    await stopped(this.pid);
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  /** Resolves when the process has stopped itself. */
  stoppedItself(): Promise<void> {
    return stopped(this.pid);
  }

  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await gone;
  }

  acks(): Ack[] {
    if (!existsSync(this.acksFile)) return [];
    return readFileSync(this.acksFile, 'utf8')
      .split('\n')
      .filter((line) => line.endsWith('}'))
      .map((line) => JSON.parse(line) as Ack);
  }

  async end(): Promise<void> {
    await this.kill();
    await Promise.all(this.proxies.map((proxy) => proxy.close()));
  }
}

/**
 * What acknowledgements promise of the final state, and whether it holds: what was acknowledged to be there is there
 * with what it holds, what was acknowledged to be gone is gone. What was tried and not acknowledged may be either.
 */
export function brokenPromises(acks: readonly Ack[], has: (key: string) => boolean): string[] {
  const last = new Map<string, Ack>();
  for (const ack of acks) last.set(ack.name, ack);
  const digests = new Map<string, string>();
  for (const ack of acks) if (ack.digest !== undefined) digests.set(ack.name, ack.digest);
  const broken: string[] = [];
  for (const [name, ack] of last) {
    if (ack.trying) continue;
    const key = `${ack.did === 'image' || ack.did === 'release' ? 'images' : 'leases'}\0ns1\0${name}`;
    if (ack.did === 'release' || ack.did === 'drop') {
      if (has(key)) broken.push(`${name} is there, though its deletion was acknowledged`);
      continue;
    }
    if (!has(key)) broken.push(`${name} is gone, though it was acknowledged`);
    else if (!has(`blobs\0ns1\0${digests.get(name)}`)) broken.push(`${name} has lost its blob`);
  }
  return broken;
}
