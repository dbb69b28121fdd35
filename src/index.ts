/**
 * The public API: everything that embedders and authors of snapshotters and collectors need. Re-exports only;
 * names that are not here may change at any time. Contract tests for other engines are at `ebbtide/testing`.
 */

// ---- The database

export type { BackupOptions, BackupReport } from './backup/backup.js';
export type { Problem } from './backup/manifest.js';
export { type RestoreOptions, type RestoreReport, restoreBackup } from './backup/restore.js';
export type { OnTransferProgress, TransferPhase, TransferReport } from './backup/transfer.js';
export type { ClusterHosts, HostInfo, HostRemoval } from './cluster-hosts.js';
export { type Compaction, compactStore } from './compact-store.js';
export { DB, type RunOptions } from './db.js';
export type { Log, LogLevel, MutationCallback } from './db-host.js';
export {
  type DBOpt,
  type DBOptions,
  type OpenOptions,
  type SnapshotterName,
  snapshotterNames,
  withDurability,
  withEtcdGC,
  withEventsPublisher,
  withExpiryGrace,
  withLeaseBackend,
  withLog,
  withPolicyIsolated,
} from './db-options.js';
export {
  EnableEtcdGC,
  LeaseBackend,
  type LeaseBackendName,
  setEnableEtcdGC,
  setLeaseBackend,
} from './defaults.js';
export type { EtcdConfig, EtcdTls } from './engine/etcd/options.js';
export {
  newBoltLeaseManager,
  newContainerStore,
  newImageStore,
  newLeaseManager,
  newNamespaceStore,
  newSandboxStore,
  newTransactor,
} from './factories.js';
export { layout, newDB, openDB } from './open.js';
export type { ContentPolicy, EventsPublisher } from './stores/host.js';

// ---- Call contexts and errors

export {
  type CallContext,
  requireNamespace,
  withLease,
  withNamespace,
  withSignal,
  withSourceDateEpoch,
  withTransactionContext,
} from './context.js';
export {
  EbbtideError,
  type ErrorDetails,
  type ErrorKind,
  errorKinds,
  isAlreadyExists,
  isFailedPrecondition,
  isKind,
  isNotFound,
  kindOf,
  wrap,
} from './errors.js';

// ---- Records and their rules

export {
  type Algorithm,
  Digester,
  digestOf,
  EMPTY_SHA256,
  isDigest,
  parseDigest,
  validateDigest,
} from './model/digest.js';
export {
  type Adaptor,
  adaptLabels,
  type Filter,
  parseFilter,
  parseFilters,
  quoteForFilter,
} from './model/filters.js';
export { MAX_IDENTIFIER_BYTES, validateIdentifier } from './model/identifiers.js';
export {
  inheritedSnapshotLabels,
  Label,
  MAX_LABEL_BYTES,
  validateLabel,
  validateLabels,
} from './model/labels.js';
export type { Any, AnyMap, StringMap } from './model/records.js';
export {
  formatTimestamp,
  type Instant,
  now,
  parseDuration,
  parseTimestamp,
  zeroTime,
} from './model/time.js';
export { compareUtf8 } from './model/utf8.js';

// ---- Stores

export { type Container, type ContainerInput, ContainerStore } from './stores/containers.js';
export { type ContentInput, ContentStore } from './stores/content/content.js';
export {
  copy as copyContent,
  type Ingester,
  openWriter,
  type Provider,
  type RandomAccessSource,
  type ReadDescriptor,
  readBlob,
  type SeekableSource,
  type Source,
  WriterReset,
  writeBlob,
} from './stores/content/content-helpers.js';
export type {
  CommitOptions as ContentCommitOptions,
  ContentWriter,
} from './stores/content/content-writer.js';
export {
  type Descriptor,
  type Image,
  type ImageDeleteOptions,
  type ImageInput,
  ImageStore,
} from './stores/images.js';
export {
  type Lease,
  type LeaseDeleteOptions,
  type LeaseDraft,
  LeaseManager,
  type LeaseOption,
  type LeaseRef,
  type Resource,
  withExpiration,
  withId,
  withLabel,
  withLabels,
  withRandomId,
} from './stores/leases.js';
export { withNamespaceCgroupDeletion } from './stores/namespace-cgroup.js';
export { type NamespaceDeleteOption, type NamespaceHost, NamespaceStore } from './stores/namespaces.js';
export {
  addExtension,
  addLabel,
  getExtension,
  getLabel,
  type Sandbox,
  type SandboxInput,
  SandboxStore,
} from './stores/sandboxes.js';
export {
  type CommitOptions as SnapshotCommitOptions,
  type CreateOptions as SnapshotCreateOptions,
  type SnapshotInput,
  Snapshotter,
} from './stores/snapshots.js';

// ---- Images: import, export, layers

export type { Applied, ApplyOptions } from './backends/archive/apply.js';
export { applyLayer } from './backends/archive/apply.js';
export { type Diffed, type DiffOptions, diffLayer } from './backends/archive/diff.js';
export { type ArchiveLimits, defaultLimits } from './backends/archive/limits.js';
export type { Sink } from './backends/archive/tar/tar-writer.js';
export type { Platform } from './images/documents.js';
export { type Exported, type ExportedImage, type ExportOptions, exportImages } from './images/export.js';
export { type ImportOptions, importImage, type LeftOut } from './images/import.js';
export { childLabels, type LabelledChild, MediaType } from './images/media-types.js';
export { normalizeDockerReference } from './images/names.js';
export type { Output } from './images/output.js';
export { hostPlatform, parsePlatformText } from './images/platforms.js';
export {
  type ImageServices,
  Interrupted,
  type LayerSnapshotter,
  type OnProgress,
  type Progress,
} from './images/services.js';
export { chainIds, type Unpacked, type UnpackOptions, unpackImage } from './images/unpack.js';

// ---- Collections

export type { CollectOptions } from './gc/collect.js';
export type {
  CollectionContext,
  CollectOptionsForCollector,
  Collector,
  Send,
  SendBackReference,
} from './gc/collectors.js';
export { type ConcurrentOptions, concurrentMark, NodeSet, sweep, tricolor } from './gc/mark/tricolor.js';
export type { DiskLine, DiskReport } from './gc/report/disk-report.js';
export {
  type ObjectDescription,
  type ObjectKind,
  type ObjectName,
  objectKinds,
} from './gc/report/objects.js';
export type { DatedObject, GarbageSince } from './gc/report/oldest.js';
export { type CollectionPlan, type PlanOutcome, parsePlan, type RestReason } from './gc/report/plan.js';
export {
  type UsageGroup,
  type UsageOptions,
  type UsageReport,
  type UsageRow,
  usageGroups,
} from './gc/report/retained.js';
export type { LeaseOwner, Why, WhyOptions, WhyStep } from './gc/report/why.js';
export type { ClockSteps, ExpiryTime } from './gc/schedule/expiry-clock.js';
export {
  type Clock,
  type Collectable,
  Scheduler,
  type SchedulerHooks,
} from './gc/schedule/scheduler.js';
export {
  type Duration,
  type SchedulerOptions,
  type SchedulerParams,
  schedulerParams,
} from './gc/schedule/scheduler-params.js';
export type { Candidate, Counts, GCStats } from './gc/stats.js';
export { type Stream, Streams } from './gc/streams.js';
export type { MassGuard } from './gc/sweep/mass-guard.js';
export type { OrphanState } from './gc/sweep/orphan-guard.js';
export {
  FLAT_VARIANT,
  type Node,
  ResourceContainer,
  ResourceContent,
  ResourceImage,
  ResourceIngest,
  ResourceLease,
  ResourceMax,
  ResourceMount,
  ResourceSnapshot,
  ResourceStream,
  ResourceTask,
  ResourceType,
  ResourceUnknown,
} from './gc/types.js';

// ---- Checks

export type { CheckOptions } from './check/check.js';
export {
  type CheckReport,
  type Finding,
  type FindingKind,
  findingKinds,
  type Severity,
} from './check/findings.js';
export type { CheckPhase } from './check/under-way.js';

// ---- Engines, for `newDB` and for engines of your own

export type {
  Adjacency,
  Change,
  ChangeSet,
  Durability,
  Edge,
  Engine,
  EngineOptions,
  EngineStats,
  FieldValue,
  GetOptions,
  Indexer,
  Key,
  Locks,
  PutOptions,
  Reader,
  ScanOptions,
  SharedTree,
  SharedTreeListener,
  SortField,
  Transaction,
  Transactor,
  TreeCopy,
  TreeHost,
  Unlock,
  UpdateOptions,
  Value,
} from './engine/contract.js';
export { EdgeKind, NodeFlag } from './engine/contract.js';
export type { EtcdEngine } from './engine/etcd/engine.js';
export { type EtcdEngineOptions, openEtcdEngine } from './engine/etcd/open.js';
export type { GraphCore } from './engine/graph.js';
export { type LmdbEngineOptions, openLmdbEngine } from './engine/lmdb/engine.js';
export { openMemoryEngine } from './engine/memory/engine.js';
export * from './engine/schema/names.js';
export { metadataIndexer } from './gc/references.js';
export { type CoreInfo, type CoreKind, coreInfo, createGraph } from './graph/carriers.js';

// ---- Backends, for `newDB` and for backends of your own

export { type ContentOptions, openContent } from './backends/content/store.js';
export type {
  BackendWriter,
  BlobReader,
  ContentBackend,
  ContentInfo,
  DiskJobs,
  IngestStatus,
  Mount,
  RemovalReport,
  SnapshotInfo,
  SnapshotKind,
  SnapshotOptions,
  SnapshotterBackend,
  Usage,
  WriterDescriptor,
} from './backends/contract.js';
export { assertCanMount, canMount, withMounts } from './backends/mounts.js';
export { type NativeOptions, openNative } from './backends/snapshotters/native.js';
export { type OverlayOptions, openOverlayfs } from './backends/snapshotters/overlayfs.js';
export type { SnapshotterOptions } from './backends/snapshotters/snapshotter.js';
export { createDiskPool, type DiskPool, type DiskPoolOptions } from './gc/sweep/disk-pool.js';
