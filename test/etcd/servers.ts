/**
 * Real etcd servers on loopback for the tests of this folder: one member or three, each a process of Debian's
 * `etcd-server`. Members can be paused, killed and started again; whatever is left ends with the test process.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, execFileSync } from 'node:child_process';
import { accessSync, constants, mkdtempSync, readdirSync, readFileSync, rmSync, statfsSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { EtcdClient } from '../../src/engine/etcd/client/client.js';
import { type EtcdConfig, etcdSettings } from '../../src/engine/etcd/client/options.js';
import { aptInstall } from '../support/apt.js';
import { spawnMortal } from './mortal.js';
import type { Place } from './network.js';

/** Directory of another `etcd` and `etcdctl` than those on the path. */
const programs = process.env.EBBTIDE_ETCD_PROGRAMS;
const program = (name: 'etcd' | 'etcdctl'): string => (programs ? join(programs, name) : name);

/** Installs the server when it is missing and we may; else the tests fail saying what to install. */
export function requireEtcd(): void {
  if (has(program('etcd'))) return;
  if (programs) throw new Error(`EBBTIDE_ETCD_PROGRAMS has no etcd that runs: ${programs}`);
  const help = 'these tests need a real etcd: apt-get install etcd-server etcd-client';
  if (process.getuid?.() !== 0) throw new Error(help);
  if (!aptInstall(['etcd-server', 'etcd-client'])) throw new Error(help);
  assert.ok(has('etcd'), help);
}

function has(program: string): boolean {
  try {
    execFileSync(program, ['--version'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve) => {
          const server = createServer().listen(0, '127.0.0.1', () => resolve(server));
        }),
    ),
  );
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

/** Resolves when every thread of a process has stopped. */
export async function stopped(pid: number): Promise<void> {
  for (;;) {
    const tasks = readdirSync(`/proc/${pid}/task`);
    const states = tasks.map(
      (task) => /\) (\w)/.exec(readFileSync(`/proc/${pid}/task/${task}/stat`, 'utf8'))?.[1],
    );
    if (states.every((state) => state === 'T')) return;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

function isRoomy(dir: string): boolean {
  try {
    accessSync(dir, constants.W_OK);
    const { bavail, bsize } = statfsSync(dir);
    return bavail * bsize > 2 ** 30;
  } catch {
    return false;
  }
}

/** Elections of etcd end within some seconds. */
const LEADER_TRIES = 150;
const dirs = new Set<string>();
process.on('exit', () => {
  for (const dir of dirs) rmSync(dir, { recursive: true, force: true });
});

export interface MemberOptions {
  extra?: readonly string[];
  /** Keep the data on disk, for figures; tests need not. */
  onDisk?: boolean;
  /** Files of a client certificate: the members speak TLS to clients. */
  tls?: { ca: string; cert: string; key: string };
  /** Where each member runs; on loopback by default. */
  places?: readonly Place[];
}

const loopback: Place = { address: '127.0.0.1', command: [] };

export class Member {
  readonly name: string;
  readonly url: string;
  readonly peerUrl: string;
  readonly #dir: string;
  readonly place: Place;
  #child: ChildProcess | undefined;

  constructor(
    dir: string,
    name: string,
    clientPort: number,
    peerPort: number,
    scheme = 'http',
    place: Place = loopback,
  ) {
    this.#dir = join(dir, name);
    this.name = name;
    this.place = place;
    this.url = `${scheme}://${place.address}:${clientPort}`;
    this.peerUrl = `http://${place.address}:${peerPort}`;
  }

  get pid(): number {
    return this.#child?.pid ?? -1;
  }

  start(cluster: string, state: 'new' | 'existing', extra: readonly string[]): void {
    const args = [
      ['--name', this.name],
      ['--data-dir', this.#dir],
      ['--listen-client-urls', this.url],
      ['--advertise-client-urls', this.url],
      ['--listen-peer-urls', this.peerUrl],
      ['--initial-advertise-peer-urls', this.peerUrl],
      ['--initial-cluster', cluster],
      ['--initial-cluster-state', state],
      ['--heartbeat-interval', '50'],
      ['--election-timeout', '500'],
      ['--log-level', 'error'],
    ].flat();
    const env = { ...process.env, ETCD_UNSUPPORTED_ARCH: process.arch };
    const child = spawnMortal(
      program('etcd'),
      [...args, ...extra],
      { stdio: 'ignore', env },
      this.place.command,
    );
    this.#child = child;
  }

  /** Whether the server has ended, other than by `kill`. */
  get hasEnded(): boolean {
    const child = this.#child;
    return child !== undefined && (child.exitCode !== null || child.signalCode !== null);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** SIGSTOP, and waits until it has stopped. */
  async pause(): Promise<void> {
    this.signal('SIGSTOP');
    await stopped(this.pid);
  }

  /** Puts what a snapshot has in the place of the data. REQUIRES: it is not running. */
  restore(snapshot: string, cluster: string): void {
    rmSync(this.#dir, { recursive: true });
    const args = [
      ['snapshot', 'restore', snapshot],
      ['--name', this.name],
      ['--data-dir', this.#dir],
      ['--initial-cluster', cluster],
      ['--initial-advertise-peer-urls', this.peerUrl],
    ].flat();
    execFileSync(program('etcdctl'), args, { env: { ...process.env, ETCDCTL_API: '3' }, stdio: 'ignore' });
  }

  /** kill -9, and waits until it is gone. */
  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGCONT');
    child.kill('SIGKILL');
    await gone;
  }
}

export class Cluster {
  readonly members: Member[];
  readonly #dir: string;
  readonly #extra: readonly string[];
  readonly #tls: MemberOptions['tls'];
  #prefixes = 0;

  private constructor(dir: string, members: Member[], { extra = [], tls }: MemberOptions) {
    this.#dir = dir;
    this.members = members;
    this.#extra = extra;
    this.#tls = tls;
  }

  /** Ports that are free may be taken by others a moment later; then other ones are tried. */
  static async start(size: 1 | 3 = 1, options: MemberOptions = {}): Promise<Cluster> {
    requireEtcd();
    for (let tries = 1; ; tries++) {
      try {
        return await Cluster.#startOnce(size, options);
      } catch (error) {
        if (tries === 3) throw error;
      }
    }
  }

  static async #startOnce(size: 1 | 3, options: MemberOptions): Promise<Cluster> {
    // Data in memory where there is room: what fsync protects from does not happen to a test's server.
    const place = !options.onDisk && isRoomy('/dev/shm') ? '/dev/shm' : tmpdir();
    const dir = mkdtempSync(join(place, 'ebbtide-etcd-'));
    dirs.add(dir);
    const ports = await freePorts(size * 2);
    const members = Array.from({ length: size }, (_, i) => {
      const [client, peer] = [ports[i * 2]!, ports[i * 2 + 1]!];
      return new Member(dir, `m${i}`, client, peer, options.tls && 'https', options.places?.[i]);
    });
    const cluster = new Cluster(dir, members, options);
    for (const member of members) member.start(cluster.initial, 'new', options.extra ?? []);
    try {
      await cluster.ready();
    } catch (error) {
      await cluster.stop();
      throw error;
    }
    return cluster;
  }

  get initial(): string {
    return this.members.map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(',');
  }
  get urls(): string[] {
    return this.members.map(({ url }) => url);
  }

  /** Settings of a host; each call without a prefix gets a tree of its own. */
  config(more: Partial<EtcdConfig> = {}): EtcdConfig {
    return {
      hosts: this.urls,
      prefix: `t${++this.#prefixes}/`,
      hostId: `host-${process.pid}-${this.#prefixes}`,
      requestTimeoutMs: 3000,
      sessionTtlSeconds: 10,
      ...more,
    };
  }

  /** A plain client, for looking from outside; of all members unless told. */
  client(prefix = '', hosts: readonly string[] = this.urls): EtcdClient {
    const tls = this.#tls && { tls: this.#tls };
    const settings = { hosts: [...hosts], prefix, hostId: 'looker', requestTimeoutMs: 3000, ...tls };
    return new EtcdClient(etcdSettings(settings));
  }

  async ready(): Promise<void> {
    const client = this.client();
    try {
      for (let i = 0; ; i++) {
        try {
          await client.range('ready', { timeoutMs: 1000 });
          return;
        } catch (error) {
          if (i > 100) throw error;
          const ended = this.members.find((member) => member.hasEnded);
          if (ended !== undefined)
            throw new Error(`etcd member ${ended.name} has ended by itself`, { cause: error });
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
      }
    } finally {
      client.close();
    }
  }

  /** Sets the only member back to a snapshot, as an administrator does. */
  async setBack(snapshot: string): Promise<void> {
    const [member] = this.members;
    assert.ok(member !== undefined && this.members.length === 1);
    await member.kill();
    member.restore(snapshot, this.initial);
    this.restart(member);
    await this.ready();
  }

  /** Starts a member that was killed. */
  restart(member: Member, extra: readonly string[] = this.#extra): void {
    member.start(this.initial, 'new', extra);
  }

  etcdctl(...args: string[]): string {
    return this.#ctl(this.urls, args);
  }

  etcdctlOf(member: Member, ...args: string[]): string {
    return this.#ctl([member.url], args);
  }

  #ctl(urls: readonly string[], args: readonly string[]): string {
    const env = { ...process.env, ETCDCTL_API: '3' };
    return execFileSync(program('etcdctl'), ['--endpoints', urls.join(','), ...args], {
      env,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /** Adds a new member to those that are left of a removed one (the first). */
  async join(): Promise<void> {
    const [client, peer] = await freePorts(2);
    const member = new Member(this.#dir, `m${this.members.length}`, client!, peer!);
    const rest = this.members.slice(1);
    // Refused until the rest have talked to each other for a while.
    for (let tries = 0; ; tries++) {
      try {
        this.#ctl([rest[0]!.url], ['member', 'add', member.name, `--peer-urls=${member.peerUrl}`]);
        break;
      } catch (error) {
        if (tries > 60) throw error;
        await new Promise((resolve) => setTimeout(resolve, 250));
      }
    }
    const initial = [...rest, member].map(({ name, peerUrl }) => `${name}=${peerUrl}`).join(',');
    member.start(initial, 'existing', this.#extra);
    this.members.push(member);
    await this.ready();
  }

  /** The member that leads; waits for the end of an election. */
  async leader(): Promise<Member> {
    for (let tries = 0; tries < LEADER_TRIES; tries++) {
      const member = this.#leaderNow();
      if (member !== undefined) return member;
      await sleep(100);
    }
    throw new Error('the members have no leader');
  }

  #leaderNow(): Member | undefined {
    const status = JSON.parse(this.etcdctl('endpoint', 'status', '-w', 'json')) as {
      Endpoint: string;
      Status: { leader: number; header: { member_id: number } };
    }[];
    const found = status.find(({ Status }) => Status.leader === Status.header.member_id);
    return this.members.find(({ url }) => url === found?.Endpoint);
  }

  /** The leader, as a member sees it: an id, '0' when it knows of none. */
  leaderAs(member: Member): string {
    const status = this.etcdctlOf(member, 'endpoint', 'status', '-w', 'json');
    // A number of 64 bits.
    return /"leader":(\d+)/.exec(status)?.[1] ?? '0';
  }

  async stop(): Promise<void> {
    await Promise.all(this.members.map((member) => member.kill()));
    rmSync(this.#dir, { recursive: true, force: true });
  }
}
