/** Calls whose outcome is meant to differ from containerd 1.6's, each with the reason. */
const newer = 'a service of newer containerds';
const meantCode = 'containerd returns Unknown where this code is meant';
const validated = 'containerd takes a value that makes no sense';
const emptyKey = 'an empty key is an invalid argument';
const collects = 'containerd has no clean-up of what its metadata lacks; here it removes what has no record';

export const deliberate: ReadonlyMap<string, string> = new Map([
  ['unknown method /containerd.services.sandbox.v1.Store/Get', newer],
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
]);
