/** The command line over etcd, for the tests of this folder. */
import type { Ended } from '../cli/support.js';
import { runWarm } from '../cli/warm.js';

export const run = (env: Record<string, string>, ...args: string[]): Promise<Ended> =>
  runWarm(args, { ...process.env, EBBTIDE_NAMESPACE: 'test', EBBTIDE_SNAPSHOTTER: 'native', ...env });
