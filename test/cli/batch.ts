/** Many commands in one process (many.ts), for the tests that look at all verbs. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** The program: its argument is the list of commands. */
export const MANY = fileURLToPath(new URL('./many.js', import.meta.url));

export interface Outcome {
  code: number;
  stderr: string;
  /** '' unless it is captured. */
  stdout: string;
}

/** `gone`: a pipe without a reader. A number: this descriptor. */
export type Standard = 'capture' | 'ignore' | 'gone' | number;

export const batchEnv = (root: string): NodeJS.ProcessEnv => ({
  EBBTIDE_ROOT: root,
  EBBTIDE_NAMESPACE: 'test',
  EBBTIDE_SNAPSHOTTER: 'native',
});

/** Runs commands on a root, one after the other. */
export async function runMany(
  root: string,
  lines: readonly (readonly string[])[],
  { stdout = 'ignore' as Standard, env = {} as NodeJS.ProcessEnv } = {},
): Promise<Outcome[]> {
  const isCaptured = stdout === 'capture';
  const child = spawn(process.execPath, [MANY, JSON.stringify(lines)], {
    cwd: '/',
    env: { ...process.env, ...batchEnv(root), ...(isCaptured && { MARKED: '1' }), ...env },
    stdio: ['ignore', isCaptured || stdout === 'gone' ? 'pipe' : stdout, 'pipe'],
  });
  if (stdout === 'gone') child.stdout!.destroy();
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  if (isCaptured) child.stdout!.on('data', (data: Buffer) => out.push(data));
  child.stderr!.on('data', (data: Buffer) => err.push(data));
  const code = await new Promise((done) => child.on('close', done));
  const said = Buffer.concat(err).toString();
  const printed = partsOf(Buffer.concat(out).toString());
  const outcomes = partsOf(said).map((part, n): Outcome => {
    const [, stderr = '', exit] = /^([\s\S]*?)\n<<< (\d+)\n$/.exec(part) ?? [];
    return { code: Number(exit), stderr, stdout: printed[n] ?? '' };
  });
  assert.deepEqual([code, outcomes.length], [0, lines.length], said);
  return outcomes;
}

/** What follows each mark. */
export const partsOf = (text: string): string[] => text.split(/^>>> \d+\n/m).slice(1);
