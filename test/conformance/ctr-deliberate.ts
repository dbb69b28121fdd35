/** Steps of the `ctr` session whose outcome is meant to differ from containerd's, of each release: which lines, and why. */
import type { Release } from './releases.js';

export interface MeantDifference {
  /** The step's line; of every step of `section` without it. */
  line?: string;
  section: string;
  /** Every line that differs matches. */
  differing: RegExp;
  reason: string;
}

export const meantDifferences: Readonly<Record<Release, readonly MeantDifference[]>> = {
  1: [
    {
      section: 'version and plugins',
      line: 'ctr plugins ls',
      differing: /^io\.containerd\.(grpc\.v1 sandboxes|sandbox\.store\.v1 local) /,
      reason: 'the store of sandboxes is a service of newer containerds',
    },
    {
      section: 'events',
      differing: /\/namespaces\/(create|update) /,
      reason: 'an event of a namespace belongs to it, as in 2.x; in 1.6 to the namespace of the call',
    },
  ],
  2: [
    {
      section: 'through the Transfer service',
      differing: /./,
      reason: 'there is no Transfer service here; `--local` does the same by the other services',
    },
  ],
};
