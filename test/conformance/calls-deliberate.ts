/** Calls whose outcome is meant to differ from containerd's, each with the reason, of each release. */
import type { Release } from './releases.js';

const newer = 'a service of newer containerds';
const meantCode = 'containerd returns Unknown where this code is meant';
const validated = 'containerd takes a value that makes no sense';
const emptyKey = 'an empty key is an invalid argument';
const collects = 'containerd has no clean-up of what its metadata lacks; here it removes what has no record';

/** Of both releases. */
const besidesBoth: readonly (readonly [call: string, reason: string])[] = [
  ['namespace update labels.a', 'containerd leaves the response empty'],
  ['namespace update removes by empty', 'containerd leaves the response empty'],
  ['namespace update: no mask adds', 'containerd leaves the response empty'],
  ['write: bad digest', validated],
  ['write: unknown action', validated],
  ['write: negative offset', validated],
  ['overlayfs: prepare: no key', emptyKey],
  ['native: prepare: no key', emptyKey],
  ['abort ', emptyKey],
  ['native: commit a view', 'containerd loses the directory first and returns Unknown'],
  ['overlayfs: cleanup', collects],
  ['native: cleanup', collects],
  ['subscribe: bad filter', meantCode],
  ['diff apply: unknown media type', meantCode],
];

const noTime = 'containerd 1 leaves the time of the last update out of lists';

export const deliberate: Readonly<Record<Release, ReadonlyMap<string, string>>> = {
  1: new Map([
    ...besidesBoth,
    ['unknown method /containerd.services.sandbox.v1.Store/Get', newer],
    ['content list ', noTime],
    ['content list labels.c==d', noTime],
    ['content list digest==sha256:09ca7e4eaa6e8ae9c7d261167129184883644d07dfba7cbfbc4c8a2e08360d5b', noTime],
  ]),
  2: new Map([
    ...besidesBoth,
    [
      'unknown method /containerd.services.transfer.v1.Transfer/Transfer',
      'there is no Transfer service here without --transfer',
    ],
    ['container create: no spec', 'containerd 2 does not notice that the spec is absent, which it requires'],
  ]),
};
