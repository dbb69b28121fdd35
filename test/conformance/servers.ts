/**
 * The two servers that are compared: a real containerd and `ebbtide serve`, each with a private root, state and unix
 * socket in one directory. Nothing listens on the network. Started, stopped, killed and started again by the harness.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { buildGo } from './go-programs.js';
import { environmentOf, type Release } from './releases.js';

export const sides = ['containerd', 'ebbtide'] as const;
export type Side = (typeof sides)[number];
/**
 * Which program a Server runs: one of the compared, the reference of a proxy plugin (backend/main.go), or the daemon's
 * services on Node's own HTTP/2 (bench/daemon/node-http2).
 */
type Program = Side | 'backend' | 'node-http2';

export interface ServerOptions {
  /** Private directory of this server, made when missing. */
  dir: string;
  /** Of a containerd; default 1. */
  release?: Release;
  policy?: 'shared' | 'isolated';
  /** Default `on-request`: only when a client asks (synchronous delete). */
  gc?: 'on-request' | 'scheduled';
  /** Lines added to containerd's configuration; arguments added to ebbtide's command line. */
  config?: string;
  args?: readonly string[];
  /** Plugins that containerd leaves out besides those that need what is not here. */
  disable?: readonly string[];
}

const cli = fileURLToPath(new URL('../../src/bundle/main.js', import.meta.url));
const nodeHttp2 = fileURLToPath(new URL('../../bench/daemon/node-http2/main.js', import.meta.url));
/** Node's options in the first line of the program. */
const nodeFlags = readFileSync(cli, 'utf8').split('\n', 1)[0]!.split(' ').slice(3);
const READY_MS_MAX = 60_000;
const STOP_MS_MAX = 30_000;
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export class Server implements AsyncDisposable {
  readonly side: Program;
  readonly dir: string;
  readonly root: string;
  readonly address: string;
  readonly logFile: string;
  readonly #command: readonly string[];
  readonly #env: NodeJS.ProcessEnv;
  #child: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();

  private constructor(side: Program, options: ServerOptions) {
    this.side = side;
    this.dir = options.dir;
    this.root = join(options.dir, 'root');
    this.address = join(options.dir, 's.sock');
    this.logFile = join(options.dir, 'log');
    mkdirSync(this.root, { recursive: true, mode: 0o711 });
    this.#env = side === 'containerd' ? environmentOf(options.release ?? '1') : process.env;
    if (side === 'backend') {
      this.#command = [buildGo('test/conformance/backend', 'program'), this.root, this.address];
    } else if (side === 'node-http2') {
      const args = ['--root', this.root, '--address', this.address, ...(options.args ?? [])];
      this.#command = [process.execPath, ...nodeFlags, nodeHttp2, ...args];
    } else {
      this.#command = side === 'containerd' ? this.#containerd(options) : this.#ebbtide(options);
    }
  }

  static async start(side: Program, options: ServerOptions): Promise<Server> {
    const server = new Server(side, options);
    await server.start();
    return server;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Starts (again) and waits until the socket accepts connections. */
  async start(): Promise<void> {
    const log = openSync(this.logFile, 'a');
    const [program, ...args] = this.#command;
    const child = spawn(program!, args, { env: this.#env, stdio: ['ignore', log, log] });
    closeSync(log);
    running.add(child);
    this.#child = child;
    let end: string | undefined;
    this.#ended = new Promise((resolve) => {
      const ended = (how: string): void => {
        end = how;
        running.delete(child);
        resolve();
      };
      child.on('error', (error) => ended(error.message));
      child.on('exit', (code, signal) => ended(`ended with ${signal ?? code}`));
    });
    for (const deadline = Date.now() + READY_MS_MAX; ; await sleep(5)) {
      if (end !== undefined) throw new Error(`${this.side} ${end}; its last lines:\n${this.lastLines()}`);
      if (await accepts(this.address)) return;
      if (Date.now() < deadline) continue;
      await this.kill();
      throw new Error(`${this.side} accepts no connection; its last lines:\n${this.lastLines()}`);
    }
  }

  /** Asks it to end. A server that has to be killed, or ends with a complaint, is a fault. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGTERM');
    const given = new AbortController();
    const late = sleep(STOP_MS_MAX, 'late', { signal: given.signal }).catch(() => 'aborted');
    const first = await Promise.race([this.#ended.then(() => 'ended'), late]);
    given.abort();
    if (first === 'late') await this.kill();
    if (child.exitCode === 0 || this.side === 'backend') return;
    const how =
      first === 'late' ? `did not end within ${STOP_MS_MAX / 1000} s` : `ended with ${child.exitCode}`;
    throw new Error(`${this.side} ${how} when it was asked to; its last lines:\n${this.lastLines()}`);
  }

  /** kill -9. */
  async kill(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#ended;
  }

  lastLines(count = 15): string {
    return readFileSync(this.logFile, 'utf8').trimEnd().split('\n').slice(-count).join('\n');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #containerd(options: ServerOptions): string[] {
    const file = join(this.dir, 'config.toml');
    writeFileSync(file, containerdConfig(this, options));
    return ['containerd', '--config', file];
  }

  #ebbtide(options: ServerOptions): string[] {
    return [
      ...[process.execPath, ...nodeFlags, cli, 'serve', '--root', this.root, '--address', this.address],
      ...['--snapshotters', 'native,overlayfs', '--policy', options.policy ?? 'shared'],
      ...((options.gc ?? 'on-request') === 'on-request' ? ['--gc', 'on-request'] : []),
      ...(options.args ?? []),
    ];
  }
}

/** Plugins that are not compared and would need devices, a network or other file systems. */
const leftOut = [
  'io.containerd.grpc.v1.cri',
  'io.containerd.snapshotter.v1.btrfs',
  'io.containerd.snapshotter.v1.zfs',
  'io.containerd.snapshotter.v1.aufs',
  'io.containerd.snapshotter.v1.devmapper',
];
/** The same of 2. */
const leftOutOf2 = [
  'io.containerd.cri.v1.images',
  'io.containerd.cri.v1.runtime',
  'io.containerd.nri.v1.nri',
  'io.containerd.snapshotter.v1.blockfile',
  'io.containerd.snapshotter.v1.erofs',
  'io.containerd.differ.v1.erofs',
];

function containerdConfig(server: Server, options: ServerOptions): string {
  const newer = options.release === '2';
  const disabled = [...leftOut, ...(newer ? leftOutOf2 : []), ...(options.disable ?? [])]
    .map((id) => JSON.stringify(id))
    .join(', ');
  // A first collection far off and a pause between two that is 1e9 times as long as one: only requests are left.
  const scheduler =
    (options.gc ?? 'on-request') === 'on-request'
      ? ['startup_delay = "1000h"', 'pause_threshold = 1e-9', 'mutation_threshold = 1000000000']
      : [];
  return [
    `version = ${newer ? 3 : 2}`,
    `root = ${JSON.stringify(server.root)}`,
    `state = ${JSON.stringify(join(server.dir, 'state'))}`,
    `disabled_plugins = [${disabled}]`,
    '[grpc]',
    `address = ${JSON.stringify(server.address)}`,
    '[plugins."io.containerd.internal.v1.opt"]',
    `path = ${JSON.stringify(join(server.dir, 'opt'))}`,
    '[plugins."io.containerd.metadata.v1.bolt"]',
    `content_sharing_policy = ${JSON.stringify(options.policy ?? 'shared')}`,
    '[plugins."io.containerd.gc.v1.scheduler"]',
    ...scheduler,
    options.config ?? '',
    '',
  ].join('\n');
}

function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const finish = (value: boolean) => (): void => {
      socket.destroy();
      resolve(value);
    };
    socket.once('connect', finish(true)).once('error', finish(false));
  });
}
