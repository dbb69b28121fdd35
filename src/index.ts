// biome-ignore-all format: the whole of it on one page
/**
 * What an embedder needs: open a store, work with it, collect it, report on it. Re-exports only; names that are not here may
 * change at any time. Authors of engines, snapshotters and collectors find the rest in `ebbtide/backend` (backend.ts), the contract
 * tests of an engine in `ebbtide/testing` (engine/suite.ts).
 */

// ---- The database

export { type Compaction, compactStore } from './compact-store.js';
export { DB, type RunOptions } from './db.js';
export type { Log, LogLevel, MutationCallback } from './db-host.js';
export {
  type DBOpt, type DBOptions, type OpenOptions, type SnapshotterName, snapshotterNames,
  withEtcdGC, withEventsPublisher, withLeaseBackend, withPolicyIsolated,
} from './db-options.js';
export { EnableEtcdGC, LeaseBackend, type LeaseBackendName, setEnableEtcdGC, setLeaseBackend } from './defaults.js';
export type {
  Durability, FieldValue, GetOptions, Key, Locks, PutOptions, SortField, Transaction, Transactor, Unlock, Value,
} from './engine/contract.js';
export * from './engine/schema/names.js';
export {
  newBoltLeaseManager, newContainerStore, newImageStore, newLeaseManager, newNamespaceStore, newSandboxStore, newTransactor,
} from './factories.js';
export { layout, newDB, openDB } from './open.js';
export type { ContentPolicy, EventsPublisher } from './stores/host.js';

// ---- Several hosts, backups, checks

export type { BackupOptions, BackupReport } from './backup/backup.js';
export type { Problem } from './backup/manifest.js';
export { type RestoreOptions, type RestoreReport, restoreBackup } from './backup/restore.js';
export type { OnTransferProgress, TransferPhase, TransferReport } from './backup/transfer.js';
export type { CheckOptions } from './check/check.js';
export { type CheckReport, type Finding, type FindingKind, findingKinds, type Severity } from './check/findings.js';
export type { CheckPhase } from './check/under-way.js';
export type { ClusterHosts, HostInfo, HostRemoval } from './cluster-hosts.js';
export type { EtcdConfig, EtcdTls } from './engine/etcd/client/options.js';

// ---- Call contexts and errors

export {
  type CallContext, requireNamespace, withLease, withNamespace, withSignal, withSourceDateEpoch, withTransactionContext,
} from './context.js';
export {
  EbbtideError, type ErrorDetails, type ErrorKind, errorKinds,
  isAlreadyExists, isFailedPrecondition, isKind, isNotFound, kindOf, OutcomeUnknown, wrap,
} from './errors.js';

// ---- Tracing channels (node:diagnostics_channel)

export type { BackendTrace, CollectionTrace, TransactionTrace } from './tracing.js';

// ---- Records and their rules

export {
  type Algorithm, Digester, digestOf, EMPTY_SHA256, isDigest, parseDigest, validateDigest,
} from './model/digest.js';
export { type Adaptor, adaptLabels, type Filter, parseFilter, parseFilters, quoteForFilter } from './model/filters.js';
export { MAX_IDENTIFIER_BYTES, validateIdentifier } from './model/identifiers.js';
export { jsonValue } from './model/json.js';
export { inheritedSnapshotLabels, Label, MAX_LABEL_BYTES, validateLabel, validateLabels } from './model/labels.js';
export type { Any, AnyMap, StringMap } from './model/records.js';
export { formatTimestamp, type Instant, now, parseDuration, parseTimestamp, zeroTime } from './model/time.js';

// ---- Stores

export type { ContentInfo, IngestStatus, Mount, SnapshotInfo, SnapshotKind, Usage } from './backends/contract.js';
export { assertCanMount, canMount, withMounts } from './backends/mounts.js';
export { type Container, type ContainerInput, ContainerStore } from './stores/containers.js';
export { type ContentInput, ContentStore } from './stores/content/content.js';
export {
  copy as copyContent, type Ingester, openWriter, type Provider, type RandomAccessSource, type ReadDescriptor,
  readBlob, type SeekableSource, type Source, WriterReset, writeBlob,
} from './stores/content/content-helpers.js';
export type { CommitOptions as ContentCommitOptions, ContentWriter } from './stores/content/content-writer.js';
export { type Descriptor, type Image, type ImageDeleteOptions, type ImageInput, ImageStore } from './stores/images.js';
export {
  type Lease, type LeaseDeleteOptions, LeaseManager, type LeaseOption, type LeaseRef, type Resource,
  withExpiration, withId, withLabel, withLabels, withRandomId,
} from './stores/leases.js';
export { type ActivateOptions, MountManager } from './stores/mounts/manager.js';
export type { Activation, ActiveMount } from './stores/mounts/records.js';
export { withNamespaceCgroupDeletion } from './stores/namespace-cgroup.js';
export { type NamespaceDeleteOption, type NamespaceHost, NamespaceStore } from './stores/namespaces.js';
export {
  addExtension, addLabel, getExtension, getLabel, type Sandbox, type SandboxInput, SandboxStore,
} from './stores/sandboxes.js';
export {
  type CommitOptions as SnapshotCommitOptions, type CreateOptions as SnapshotCreateOptions, type SnapshotInput, Snapshotter,
} from './stores/snapshots.js';

// ---- Images: import, export, layers

export { type Applied, type ApplyOptions, applyLayer } from './backends/archive/apply.js';
export { type Diffed, type DiffOptions, diffLayer } from './backends/archive/diff.js';
export { type ArchiveLimits, defaultLimits } from './backends/archive/limits.js';
export type { Sink } from './backends/archive/tar/tar-writer.js';
export type { Platform } from './images/documents.js';
export { type Exported, type ExportedImage, type ExportOptions, exportImages } from './images/export.js';
export { type ImportOptions, importImage, type LeftOut } from './images/import.js';
export { childLabels, type LabelledChild, MediaType } from './images/media-types.js';
export { normalizeDockerReference } from './images/names.js';
export type { Borrower, Output } from './images/output.js';
export { hostPlatform, parsePlatformText } from './images/platforms.js';
export { type ImageServices, Interrupted, type LayerSnapshotter, type OnProgress, type Progress } from './images/services.js';
export { chainIds, type Unpacked, type UnpackOptions, unpackImage } from './images/unpack.js';

// ---- Collections

export type { CollectOptions } from './gc/collect.js';
export type { CollectionContext, Collector } from './gc/collectors.js';
export { type ConcurrentOptions, concurrentMark, NodeSet, sweep, tricolor } from './gc/mark/tricolor.js';
export { type Clock, type Collectable, Scheduler, type SchedulerHooks } from './gc/schedule/scheduler.js';
export { type Duration, type SchedulerOptions, type SchedulerParams, schedulerParams } from './gc/schedule/scheduler-params.js';
export type { Candidate, Counts, GCStats } from './gc/stats.js';
export { type Stream, Streams } from './gc/streams.js';
export type { MassGuard } from './gc/sweep/mass-guard.js';
export type { OrphanState } from './gc/sweep/orphan-guard.js';
export {
  type Node, ResourceContainer, ResourceContent, ResourceImage, ResourceIngest, ResourceLease, ResourceMax, ResourceMount,
  ResourceSnapshot, ResourceStream, ResourceTask, ResourceType, ResourceUnknown,
} from './gc/types.js';

// ---- Reports: why an object is kept, what a removal would free, what a collection would remove, what past ones did

export type { PlanOutcome } from './gc/report/apply-plan.js';
export type { CollectionRecord, RemovedName } from './gc/report/collection-record.js';
export type { DiskLine, DiskReport } from './gc/report/disk-report.js';
export { type ObjectDescription, type ObjectKind, type ObjectName, objectKinds } from './gc/report/objects.js';
export type { DatedObject, GarbageSince } from './gc/report/oldest.js';
export { type CollectionPlan, type Plan, parsePlan, type RestReason } from './gc/report/plan.js';
export { type UsageGroup, type UsageOptions, type UsageReport, type UsageRow, usageGroups } from './gc/report/retained.js';
export type { LeaseOwner, Why, WhyOptions, WhyStep } from './gc/report/why.js';
export type { ClockSteps, ExpiryTime } from './gc/schedule/expiry-clock.js';
export type { HistoryOptions } from './history/history.js';
export { type PictureFormat, type PictureOptions, pictureFormats } from './pictures/draw.js';

// ---- Policies: which images, leases and containers are retired

export type {
  KeepReason, KeptRoot, PlannedSpace, PolicyPlan, RetirableKind, RetiredRoot, RuleOutcome,
} from './gc/report/plan.js';
export type { Amount, Policy, PolicyRule } from './policy/policy.js';
