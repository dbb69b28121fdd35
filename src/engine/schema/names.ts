/**
 * The words of containerd's logical tree and of its keys in etcd, spelled as they are stored there. For importers,
 * exporters and users of raw keys; our own layout is keys.ts and does not use them. Nothing here is ever renamed.
 */

/** Name of the schema: the top level of the tree. */
export const KeyVersion = 'v1';
/** Below `v1`: the schema revision. */
export const KeyDBVersion = 'version';

// Sets of objects in a namespace; `labels` is also the label map of every object.
/** containerd's name of a set of objects: `labels`. */
export const KeyObjectLabels = 'labels';
/** containerd's name of a set of objects: `images`. */
export const KeyObjectImages = 'images';
/** containerd's name of a set of objects: `containers`. */
export const KeyObjectContainers = 'containers';
/** containerd's name of a set of objects: `snapshots`. */
export const KeyObjectSnapshots = 'snapshots';
/** containerd's name of a set of objects: `content`. */
export const KeyObjectContent = 'content';
/** containerd's name of a set of objects: `blob`. */
export const KeyObjectBlob = 'blob';
/** containerd's name of a set of objects: `ingests`. */
export const KeyObjectIngests = 'ingests';
/** containerd's name of a set of objects: `leases`. */
export const KeyObjectLeases = 'leases';
/** containerd's name of a set of objects: `sandboxes`. */
export const KeyObjectSandboxes = 'sandboxes';

// Fields of objects. All are lower case but `snapshotKey`.
/** containerd's name of a field or key: `digest`. */
export const KeyDigest = 'digest';
/** containerd's name of a field or key: `mediatype`. */
export const KeyMediaType = 'mediatype';
/** containerd's name of a field or key: `size`. */
export const KeySize = 'size';
/** containerd's name of a field or key: `image`. */
export const KeyImage = 'image';
/** containerd's name of a field or key: `runtime`. */
export const KeyRuntime = 'runtime';
/** containerd's name of a field or key: `name`. */
export const KeyName = 'name';
/** containerd's name of a field or key: `parent`. */
export const KeyParent = 'parent';
/** containerd's name of a field or key: `children`. */
export const KeyChildren = 'children';
/** containerd's name of a field or key: `options`. */
export const KeyOptions = 'options';
/** containerd's name of a field or key: `spec`. */
export const KeySpec = 'spec';
/** containerd's name of a field or key: `snapshotKey`. */
export const KeySnapshotKey = 'snapshotKey';
/** containerd's name of a field or key: `snapshotter`. */
export const KeySnapshotter = 'snapshotter';
/** containerd's name of a field or key: `target`. */
export const KeyTarget = 'target';
/** containerd's name of a field or key: `extensions`. */
export const KeyExtensions = 'extensions';
/** containerd's name of a field or key: `createdat`. */
export const KeyCreatedAt = 'createdat';
/** containerd's name of a field or key: `updatedat`. */
export const KeyUpdatedAt = 'updatedat';
/** containerd's name of a field or key: `expected`. */
export const KeyExpected = 'expected';
/** containerd's name of a field or key: `ref`. */
export const KeyRef = 'ref';
/** containerd's name of a field or key: `expireat`. */
export const KeyExpireAt = 'expireat';
/** containerd's name of a field or key: `sandboxid`. */
export const KeySandboxID = 'sandboxid';
/** containerd's name of a field or key: `sandboxer`. */
export const KeySandboxer = 'sandboxer';
/** containerd's name of a field or key: `annotations`. */
export const KeyAnnotations = 'annotations';

// Only in etcd: the state of collections shared by hosts, the index of namespaces, locks, overlay directories.
/** containerd's name of a field or key: `scheduler.v1`. */
export const KeySchedulerVersion = 'scheduler.v1';
/** containerd's name of a field or key: `dirtyCS`. */
export const KeyDirtyCS = 'dirtyCS';
/** containerd's name of a field or key: `dirtySS`. */
export const KeyDirtySS = 'dirtySS';
/** containerd's name of a field or key: `dirty`. */
export const KeyDirty = 'dirty';
/** containerd's name of a set of objects: `namespaces`. */
export const KeyObjectNamespace = 'namespaces';
/** containerd's name of a field or key: `lock`. */
export const KeyLock = 'lock';
/** Value that says "present, without a value". */
export const KeyNil = '1';
/** containerd's name of a field or key: `upperdir`. */
export const KeyUpperdir = 'upperdir';
/** containerd's name of a field or key: `lowerdir`. */
export const KeyLowerdir = 'lowerdir';
