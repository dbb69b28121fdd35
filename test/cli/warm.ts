/**
 * Processes that run one command after another (many.ts), since most of the time of a short one is that of its start. For tests
 * of what a command does; those of it as a process start one (`Cli.start`).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { MANY } from './batch.js';
import type { Ended } from './support.js';

/** A command, as it goes to the process. */
export interface Order {
  words: readonly string[];
  /** All variables of the environment. */
  env: NodeJS.ProcessEnv;
  /** Ends what is written to each stream. */
  end: string;
}

class Warm {
  readonly #child: ChildProcess;
  readonly #text = { stdout: '', stderr: '' };
  /** Set while a command runs. */
  #end = '';
  #done: ((ended: Ended) => void) | undefined;
  isAlive = true;

  constructor() {
    this.#child = spawn(process.execPath, [MANY], { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
    for (const name of ['stdout', 'stderr'] as const) {
      this.#child[name]!.setEncoding('utf8').on('data', (text: string) => {
        this.#text[name] += text;
        this.#look();
      });
    }
    this.#child.on('close', (code, signal) => {
      this.isAlive = false;
      this.#done?.({ code, signal, ...this.#text });
    });
    process.on('exit', () => this.#child.kill('SIGKILL'));
    this.#keep(false);
  }

  async run(words: readonly string[], env: NodeJS.ProcessEnv): Promise<Ended> {
    this.#end = `<<< ${randomBytes(8).toString('hex')} `;
    this.#keep(true);
    const ended = new Promise<Ended>((resolve) => {
      this.#done = resolve;
    });
    this.#child.send({ words, env, end: this.#end } satisfies Order);
    const outcome = await ended;
    this.#done = undefined;
    if (this.isAlive) this.#keep(false);
    return outcome;
  }

  #look(): void {
    const outcome = { stdout: '', stderr: '' };
    let code = 0;
    for (const name of ['stdout', 'stderr'] as const) {
      const text = this.#text[name];
      const at = text.lastIndexOf(this.#end);
      if (this.#end === '' || at < 0 || !text.endsWith('\n')) return;
      outcome[name] = text.slice(0, at);
      code = Number(text.slice(at + this.#end.length));
    }
    this.#text.stdout = this.#text.stderr = this.#end = '';
    this.#done?.({ code, signal: null, ...outcome });
  }

  /** Whether the test's process waits for this one before it ends. */
  #keep(isWanted: boolean): void {
    const { stdout, stderr, channel } = this.#child;
    for (const handle of [this.#child, stdout, stderr, channel] as unknown as {
      ref(): void;
      unref(): void;
    }[]) {
      if (isWanted) handle.ref();
      else handle.unref();
    }
  }
}

const idle: Warm[] = [];

/** Runs a command in a process that is free; what runs at the same time has processes of its own. */
export async function runWarm(words: readonly string[], env: NodeJS.ProcessEnv): Promise<Ended> {
  const warm = idle.pop() ?? new Warm();
  const ended = await warm.run(words, env);
  if (warm.isAlive) idle.push(warm);
  return ended;
}
