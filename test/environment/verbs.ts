/** Verbs and daemons where a disk is full, or worse. */
import assert from 'node:assert/strict';
import type { Cli, Started } from '../cli/support.js';

/** A run that must do its work; what it says beside its result does not matter. */
export async function works(cli: Cli, ...words: string[]): Promise<string> {
  const { code, signal, stdout, stderr } = await cli.run(...words);
  assert.deepEqual([code, signal], [0, null], `ebbtide ${words.join(' ')}: ${stderr}`);
  return stdout;
}

/** A daemon that collects on request only, once it serves. */
export async function serving(cli: Cli, ...args: string[]): Promise<Started> {
  const daemon = cli.start('serve', '--gc', 'on-request', ...args);
  while (!daemon.stderr().includes('"serving"')) {
    if (daemon.child.exitCode !== null) assert.fail(`serve ended: ${daemon.stderr()}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return daemon;
}
