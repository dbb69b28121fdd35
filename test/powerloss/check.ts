/** The test's side of checker.ts: one child process, begun again when a damaged store ended it. */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { CheckResult, Request } from './checker.js';

const program = fileURLToPath(new URL('./checker.js', import.meta.url));
const TIME_MS_MAX = 60_000;

export class Checker implements AsyncDisposable {
  readonly #recorder: string;
  #child: ChildProcess | undefined;

  /** `recorder`: the library that also saves the checked stores their flushes. */
  constructor(recorder: string) {
    this.#recorder = recorder;
  }

  check(request: Request): Promise<CheckResult> {
    const env = { ...process.env, LD_PRELOAD: this.#recorder, POWERLOSS_NO_FLUSH: '1' };
    this.#child ??= fork(program, { env, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] });
    const child = this.#child;
    return new Promise((resolve) => {
      let stderr = '';
      const hear = (chunk: Buffer): void => {
        stderr += chunk.toString();
      };
      const timer = setTimeout(() => child.kill('SIGKILL'), TIME_MS_MAX);
      const finish = (result: CheckResult): void => {
        clearTimeout(timer);
        child.off('exit', ended);
        child.stderr?.off('data', hear);
        child.off('message', finish);
        resolve(result);
      };
      const ended = (code: number | null, signal: NodeJS.Signals | null): void => {
        this.#child = undefined;
        finish({ trouble: `the process ended with ${signal ?? code}: ${stderr}`, objects: 0 });
      };
      child.on('exit', ended);
      child.stderr?.on('data', hear);
      child.on('message', finish);
      child.send(request);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    const exited = new Promise((resolve) => child.on('exit', resolve));
    child.disconnect();
    await exited;
  }
}
