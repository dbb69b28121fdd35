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
const registries = 'pull and push through the Transfer service';

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
    ...[
      'ctr images pull --plain-http $REGISTRY/conform/pulled >$WORK/said',
      'ctr images pull --plain-http localhost:1/conform/pulled:app >$WORK/said',
    ].map((line) => ({
      ...{ section: registries, line, differing: /^(ctr: failed to resolve image: |error: )/ },
      reason:
        'a malformed reference and a host that cannot be reached have kinds; containerd gives them none',
    })),
    ...[
      `ctr images push --plain-http --user user:wrong $PRIVATE/conform/app:2 example.com/conform/app:app >$WORK/said`,
      `ctr images push --plain-http $PRIVATE/conform/app:2 example.com/conform/app:app >$WORK/said`,
      'ctr -n moved images pull --plain-http --user user:wrong $PRIVATE/conform/app:1 >$WORK/said',
      'ctr -n moved images pull --plain-http $PRIVATE/conform/app:1 >$WORK/said',
    ].map((line) => ({
      ...{ section: registries, line, differing: /authorization failed|: 401 Unauthorized$/ },
      reason: 'a refused login has no kind, and each has its own words',
    })),
  ],
};
