/**
 * The stored form of every object, with the field names of containerd's tree (spec: schema §1). Stores
 * translate between these and the public objects, and engines encode them; nothing else reads them. A record
 * never has `undefined` fields or empty label values.
 */
import type { Instant } from './time.js';

/** Texts by name, like labels. */
export type StringMap = Readonly<Record<string, string>>;

/** An opaque typed message; `typeUrl` is kept byte for byte. */
export interface Any {
  /** Names the type. */
  readonly typeUrl: string;
  /** The encoded value. */
  readonly value: Uint8Array;
}
/** Encoded values by name. */
export type AnyMap = Readonly<Record<string, Any>>;

export interface NamespaceRecord {
  labels?: StringMap;
}

export interface ImageRecord {
  createdat: Instant;
  updatedat: Instant;
  labels?: StringMap;
  annotations?: StringMap;
  target: { digest: string; mediatype: string; size: number };
}

export interface RuntimeRecord {
  name: string;
  options?: Any;
}

export interface ContainerRecord {
  createdat: Instant;
  updatedat: Instant;
  labels?: StringMap;
  spec: Any;
  image: string;
  snapshotter: string;
  snapshotKey: string;
  sandboxid: string;
  runtime: RuntimeRecord;
  extensions?: AnyMap;
}

export interface SandboxRecord {
  createdat: Instant;
  updatedat: Instant;
  labels?: StringMap;
  spec?: Any;
  sandboxer: string;
  runtime: RuntimeRecord;
  extensions?: AnyMap;
}

export interface BlobRecord {
  createdat: Instant;
  updatedat: Instant;
  size: number;
  labels?: StringMap;
}

export interface IngestRecord {
  /** Key in the backend; empty in records that migration 2 found empty. */
  ref: string;
  expireat?: Instant;
  /** Digest; only when opened in shared mode. */
  expected?: string;
}

export interface SnapshotRecord {
  createdat: Instant;
  updatedat: Instant;
  /** Key in the backend: `<namespace>/<sequence>/<key>`. */
  name: string;
  /** Key of the parent in this namespace and snapshotter. */
  parent?: string;
  labels?: StringMap;
  /**
   * In a tree shared over etcd: the layer directories of an overlay mount, for hosts that share the file
   * system.
   */
  upperdir?: string;
  lowerdir?: string;
}

export interface LeaseRecord {
  createdat: Instant;
  labels?: StringMap;
}

/** A mount as words; its options are separated by NUL. */
export interface MountFields {
  type: string;
  source: string;
  target: string;
  options: string;
}

/** One that the mount manager has mounted. */
export interface ActiveMountFields extends MountFields {
  mountedat: Instant;
  /** The kernel's id of it. */
  mountid: string;
}

/** Mounts that were activated under a name. */
export interface MountRecord {
  createdat: Instant;
  updatedat: Instant;
  labels?: StringMap;
  /** Name of the directory of its mount points; never used for another one. */
  directory: string;
  /** In a tree shared over etcd: the host that has it. */
  host?: string;
  /** The lease that it was activated under. */
  lease?: string;
  /** Boot and mount namespace that it is mounted in. Missing until everything is mounted. */
  place?: string;
  /** By number: from 1 those that are mounted, and those that are left to the caller. */
  active?: Readonly<Record<string, ActiveMountFields>>;
  system?: Readonly<Record<string, MountFields>>;
}
