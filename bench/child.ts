/** Child processes that are given work and print one JSON object. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Readable } from 'node:stream';

export interface Task {
  command: string;
  args: readonly string[];
  /** Text for its standard input, in pieces. */
  input?: Iterable<string>;
  env?: NodeJS.ProcessEnv;
  cwd?: string;
}

async function textOf(stream: Readable): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

/** Runs it to its end; returns its standard output. Throws with its name and exit code when it fails. */
export async function runText({ command, args, input, env, cwd }: Task): Promise<string> {
  const child = spawn(command, args, {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, ...env },
    ...(cwd !== undefined && { cwd }),
  });
  // A child that ends early closes its input; its exit code says why.
  child.stdin.on('error', () => undefined);
  const failed = once(child, 'error').then(([error]) => {
    throw new Error(`cannot run ${command}: ${String(error)}`);
  });
  const output = textOf(child.stdout);
  const done = once(child, 'close') as Promise<[number | null, string | null]>;
  const feed = async (): Promise<void> => {
    for (const piece of input ?? []) {
      if (child.stdin.destroyed || child.exitCode !== null) break;
      if (!child.stdin.write(piece)) await Promise.race([once(child.stdin, 'drain'), done]);
    }
    child.stdin.end();
  };
  const [[code, signal], text] = await Promise.race([Promise.all([done, output, feed()]), failed]);
  if (code !== 0) throw new Error(`${command} ${args[0] ?? ''} ended with ${signal ?? code}`);
  return text;
}

/** As `runText`, for a child that prints JSON; the caller knows what it asked for. */
export const runJson = async <T>(task: Task): Promise<T> => JSON.parse(await runText(task)) as T;
