/** What is mounted below a directory, in this mount namespace. */
import { readFileSync } from 'node:fs';
import type { TestContext } from 'node:test';
import { sys, UmountFlag } from '../../src/backends/sys.js';

/** Mount points below a directory, in the order of the mounts. Those that a failed test leaves go after it. */
export function mountedBelow(t: TestContext, directory: string): () => string[] {
  const mounted = (): string[] =>
    readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[4] ?? '')
      .filter((point) => point.startsWith(`${directory}/`));
  t.after(() => {
    for (const point of mounted().reverse()) sys.umount(point, UmountFlag.detach);
  });
  return mounted;
}
