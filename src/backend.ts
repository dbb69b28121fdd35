// biome-ignore-all format: the whole of it on one page
/**
 * `ebbtide/backend`: for authors of engines, of content and snapshotter backends and of collectors, and for programs that
 * put a DB together from parts of their choice (`newDB`). Re-exports only; what is not named here is free to change.
 */

// ---- Engines: the contract, and those that there are

export type {
  Adjacency, Change, ChangeSet, Durability, Edge, Engine, EngineOptions, EngineStats, FieldValue, GetOptions, Indexer, Key,
  Locks, PutOptions, Reader, ScanOptions, SharedTree, SharedTreeListener, SortField, Transaction, Transactor, TreeCopy,
  TreeHost, Unlock, UpdateOptions, Value,
} from './engine/contract.js';
export { EdgeKind, NodeFlag } from './engine/contract.js';
export type { EtcdEngine } from './engine/etcd/engine.js';
export { type EtcdEngineOptions, openEtcdEngine } from './engine/etcd/open.js';
export { type LmdbEngineOptions, openLmdbEngine } from './engine/lmdb/engine.js';
export { openMemoryEngine } from './engine/memory/engine.js';
export { compareUtf8 } from './model/utf8.js';

// ---- The graph core that an engine keeps, and what it learns of a record's references

export type { GraphCore } from './engine/graph.js';
export { metadataIndexer } from './gc/references.js';
export { FLAT_VARIANT } from './gc/types.js';
export { type CoreInfo, type CoreKind, coreInfo, createGraph } from './graph/carriers.js';

// ---- Content and snapshots: the contract, and those that there are

export { type ContentOptions, openContent } from './backends/content/store.js';
export type {
  BackendWriter, BlobReader, ContentBackend, ContentInfo, DiskJobs, IngestStatus, Mount, RemovalReport, SnapshotInfo,
  SnapshotKind, SnapshotOptions, SnapshotterBackend, Usage, WriterDescriptor,
} from './backends/contract.js';
export { type NativeOptions, openNative } from './backends/snapshotters/native.js';
export { type OverlayOptions, type OverlaySwitch, type OverlaySystem, openOverlayfs } from './backends/snapshotters/overlayfs.js';
export type { SnapshotterOptions } from './backends/snapshotters/snapshotter.js';
export { createDiskPool, type DiskPool, type DiskPoolOptions } from './gc/sweep/disk-pool.js';

// ---- Collectors

export type {
  CollectionContext, CollectOptionsForCollector, Collector, Send, SendBackReference,
} from './gc/collectors.js';
export type { Node } from './gc/types.js';
