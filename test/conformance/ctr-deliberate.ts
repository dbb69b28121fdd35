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

const transfer = 'through the Transfer service';

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
    ...['ctr images ls', 'ctr images check'].map((line) => ({
      ...{ section: transfer, line, differing: /^example\.com\/real\/app:1\.0 / },
      reason:
        'layers of a docker archive stay as they are; containerd takes compressed ones that it has already',
    })),
    {
      section: transfer,
      line: 'ctr -n moved images import --base-name moved $WORK/transferred.tar >$WORK/said',
      differing: /^(exit [01]|error: invalid argument)$/,
      reason: 'an import that makes no image fails; on containerd it succeeds with nothing',
    },
  ],
};
