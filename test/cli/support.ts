/** Runs the `ebbtide` command on a store in a temporary directory. */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { isListening } from '../../src/server/connections/listener.js';
import { Blobs, named, writeFiles } from '../images/fixtures.js';
import { tempDir } from '../support/db.js';
import { checkDocument } from './schema.js';
import { runWarm } from './warm.js';

/** The command. */
export const MAIN = fileURLToPath(new URL('../../src/bundle/main.js', import.meta.url));

export interface Ended {
  code: number | null;
  /** The signal that ended it. */
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

export interface Started {
  child: ChildProcess;
  /** What was written to standard error so far. */
  stderr(): string;
  ended: Promise<Ended>;
}

/** The command under a root, with the verbs as `json` and `fails` check them. */
export class Cli {
  readonly root: string;
  readonly #env: Readonly<Record<string, string>>;

  /** `env`: variables beside those of the test's process. */
  constructor(root: string, env: Readonly<Record<string, string>> = {}) {
    this.root = root;
    this.#env = env;
  }

  /** Makes the store. */
  async init(): Promise<this> {
    const { code, stderr } = await this.run('init');
    assert.equal(code, 0, stderr);
    return this;
  }

  start(...args: string[]): Started {
    return this.#start('ignore', args);
  }

  /** A run that reads `input` from its standard input. */
  fed(input: Uint8Array, ...args: string[]): Promise<Ended> {
    const { child, ended } = this.#start('pipe', args);
    // It may end before it has read all.
    child.stdin!.on('error', () => undefined);
    child.stdin!.end(input);
    return ended;
  }

  #start(stdin: 'ignore' | 'pipe', args: readonly string[]): Started {
    const child = spawn(process.execPath, [MAIN, ...args], {
      env: this.#variables(),
      stdio: [stdin, 'pipe', 'pipe'],
    });
    const out: Buffer[] = [];
    const err: Buffer[] = [];
    child.stdout!.on('data', (chunk: Buffer) => out.push(chunk));
    child.stderr!.on('data', (chunk: Buffer) => err.push(chunk));
    const stderr = (): string => Buffer.concat(err).toString();
    const ended = new Promise<Ended>((resolve, reject) => {
      child.on('error', reject);
      child.on('close', (code, signal) =>
        resolve({ code, signal, stdout: Buffer.concat(out).toString(), stderr: stderr() }),
      );
    });
    return { child, stderr, ended };
  }

  /** A run in a process that others use before and after (warm.ts), unless variables may be meant for the start of one. */
  run(...args: string[]): Promise<Ended> {
    if (Object.keys(this.#env).length > 0) return this.start(...args).ended;
    return runWarm(args, this.#variables());
  }

  #variables(): NodeJS.ProcessEnv {
    return {
      ...process.env,
      ...this.#env,
      EBBTIDE_ROOT: this.root,
      EBBTIDE_NAMESPACE: 'test',
      EBBTIDE_SNAPSHOTTER: 'native',
    };
  }

  /** Standard output of a run that must succeed and say nothing else. */
  async ok(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...args);
    assert.deepEqual({ code, stderr }, { code: 0, stderr: '' }, `ebbtide ${args.join(' ')}`);
    return stdout;
  }

  /** The JSON document of a run that must succeed, as the schema has it. T is the caller's claim, checked by what it compares. */
  async json<T>(...args: string[]): Promise<T> {
    const document: unknown = JSON.parse(await this.ok(...args, '--json'));
    checkDocument(args, document);
    return document as T;
  }

  /** A run that must fail with this exit code and a message that matches, and print no result. */
  async fails(code: number, message: RegExp, ...args: string[]): Promise<void> {
    const ended = await this.run(...args);
    assert.equal(ended.code, code, `ebbtide ${args.join(' ')}: ${ended.stderr}`);
    assert.match(ended.stderr, message);
    assert.equal(ended.stdout, '');
  }
}

/** The command on a root that is not there yet. */
export async function cliWithoutStore(t: TestContext): Promise<Cli> {
  return new Cli(join(await tempDir(t, 'ebbtide-cli-'), 'store'));
}

/** The command on a new store that is removed with the test. */
export async function cli(t: TestContext): Promise<Cli> {
  return (await cliWithoutStore(t)).init();
}

/** A daemon on the store, until the end of the test. */
export async function serve(t: TestContext, run: Cli): Promise<void> {
  const server = run.start('serve', '--gc', 'on-request');
  t.after(async () => {
    server.child.kill('SIGTERM');
    await server.ended;
  });
  const address = join(run.root, 'run', 'ebbtide.sock');
  while (!(existsSync(join(run.root, 'daemon.json')) && (await isListening(address)))) {
    if (server.child.exitCode !== null) throw new Error(server.stderr());
    await sleep(20);
  }
}

export interface Layout {
  path: string;
  /** Digest of the layer both images have, and of the manifest of the first. */
  base: string;
  manifest: string;
}

/** A layout with the images example.com/one:1 and example.com/two:1 over one base layer. */
export async function layout(t?: TestContext): Promise<Layout> {
  const blobs = new Blobs();
  const base = [
    { name: 'etc', type: 'directory' as const },
    { name: 'etc/base', text: 'b'.repeat(20_000) },
  ];
  const one = await blobs.image([base, [{ name: 'one', text: '1'.repeat(9000) }]]);
  const two = await blobs.image([base, [{ name: 'two', text: '2'.repeat(5000) }]]);
  const entries = [named(one.manifest, 'example.com/one:1'), named(two.manifest, 'example.com/two:1')];
  const path = await writeFiles(await tempDir(t, 'ebbtide-layout-'), blobs.layout(entries));
  return { path, base: one.layers[0]!.digest, manifest: one.manifest.digest };
}
