/**
 * The words of containerd's logical tree and of its keys in etcd, spelled as they are stored there. For importers,
 * exporters and users of raw keys; our own layout is keys.ts and does not use them. Nothing here is ever renamed.
 */

/** Name of the schema: the top level of the tree. */
export const KeyVersion = 'v1';
/** Below `v1`: the schema revision. */
export const KeyDBVersion = 'version';

// Sets of objects in a namespace; `labels` is also the label map of every object.
export const KeyObjectLabels = 'labels';
export const KeyObjectImages = 'images';
export const KeyObjectContainers = 'containers';
export const KeyObjectSnapshots = 'snapshots';
export const KeyObjectContent = 'content';
export const KeyObjectBlob = 'blob';
export const KeyObjectIngests = 'ingests';
export const KeyObjectLeases = 'leases';
export const KeyObjectSandboxes = 'sandboxes';

// Fields of objects. All are lower case but `snapshotKey`.
export const KeyDigest = 'digest';
export const KeyMediaType = 'mediatype';
export const KeySize = 'size';
export const KeyImage = 'image';
export const KeyRuntime = 'runtime';
export const KeyName = 'name';
export const KeyParent = 'parent';
export const KeyChildren = 'children';
export const KeyOptions = 'options';
export const KeySpec = 'spec';
export const KeySnapshotKey = 'snapshotKey';
export const KeySnapshotter = 'snapshotter';
export const KeyTarget = 'target';
export const KeyExtensions = 'extensions';
export const KeyCreatedAt = 'createdat';
export const KeyUpdatedAt = 'updatedat';
export const KeyExpected = 'expected';
export const KeyRef = 'ref';
export const KeyExpireAt = 'expireat';
export const KeySandboxID = 'sandboxid';
export const KeySandboxer = 'sandboxer';
export const KeyAnnotations = 'annotations';

// Only in etcd: the state of collections shared by hosts, the index of namespaces, locks, overlay directories.
export const KeySchedulerVersion = 'scheduler.v1';
export const KeyDirtyCS = 'dirtyCS';
export const KeyDirtySS = 'dirtySS';
export const KeyDirty = 'dirty';
export const KeyObjectNamespace = 'namespaces';
export const KeyLock = 'lock';
/** Value that says "present, without a value". */
export const KeyNil = '1';
export const KeyUpperdir = 'upperdir';
export const KeyLowerdir = 'lowerdir';
