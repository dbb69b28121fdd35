/**
 * Child processes that die with the test process, whatever ends it: the kernel sends them SIGKILL. Without `setpriv`
 * (util-linux) they are killed when the test process exits in the ordinary way.
 */
import { type ChildProcess, execFileSync, type SpawnOptions, spawn } from 'node:child_process';

const children = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
});

let setpriv: boolean | undefined;

function hasSetpriv(): boolean {
  try {
    execFileSync('setpriv', ['--pdeathsig', 'KILL', 'true'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/** `before`: what the command line begins with, a program that becomes the next one. */
export function spawnMortal(
  program: string,
  args: readonly string[],
  options: SpawnOptions,
  before: readonly string[] = [],
): ChildProcess {
  setpriv ??= hasSetpriv();
  const mortal = setpriv ? ['setpriv', '--pdeathsig', 'KILL', '--'] : [];
  const [first = '', ...rest] = [...mortal, ...before, program, ...args];
  const child = spawn(first, rest, options);
  children.add(child);
  child.on('exit', () => children.delete(child));
  return child;
}
