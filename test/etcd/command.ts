/** The command line as a process of its own, for the tests of this folder. */
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const MAIN = fileURLToPath(new URL('../../src/bundle/main.js', import.meta.url));

export interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

export function run(env: Record<string, string>, ...args: string[]): Promise<Ended> {
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: { ...process.env, EBBTIDE_NAMESPACE: 'test', EBBTIDE_SNAPSHOTTER: 'native', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = { code: null as number | null, stdout: '', stderr: '' };
  child.stdout.on('data', (text) => {
    ended.stdout += text;
  });
  child.stderr.on('data', (text) => {
    ended.stderr += text;
  });
  return new Promise((resolve) => {
    child.once('close', (code) => resolve({ ...ended, code }));
  });
}
