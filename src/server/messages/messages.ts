/**
 * Shapes of the messages in api/, as schema.ts decodes and encodes them. Types only. In responses a field may
 * be left out; in requests strings, numbers, lists and maps are always present, and messages may be null.
 */
import type { StringMap } from '../../model/records.js';

export interface Timestamp {
  seconds: number;
  nanos: number;
}
export interface AnyMessage {
  typeUrl: string;
  value: Uint8Array;
}
export type AnyMapMessage = Record<string, AnyMessage>;
export interface FieldMask {
  paths: string[];
}

export interface DescriptorMessage {
  mediaType: string;
  digest: string;
  size: number;
  annotations?: StringMap;
}
export interface MountMessage {
  type: string;
  source: string;
  target?: string;
  options: string[];
}
export interface RuntimeMessage {
  name: string;
  options?: AnyMessage | null;
}

export interface ContentInfoMessage {
  digest: string;
  size?: number;
  createdAt?: Timestamp | null;
  updatedAt?: Timestamp | null;
  labels: StringMap;
}
export interface IngestStatusMessage {
  startedAt: Timestamp;
  updatedAt: Timestamp;
  ref: string;
  offset: number;
  total: number;
  expected: string;
}

export const WriteAction = { stat: 0, write: 1, commit: 2 } as const;
export interface WriteRequest {
  action: number;
  ref: string;
  total: number;
  expected: string;
  offset: number;
  data: Uint8Array;
  /** Undefined when the message has none. */
  labels: Record<string, string> | undefined;
}
export interface WriteResponse {
  action: number;
  startedAt?: Timestamp;
  updatedAt?: Timestamp;
  offset: number;
  total?: number;
  digest?: string;
}
export interface ReadResponse {
  offset: number;
  data: Uint8Array;
}

export interface ImageMessage {
  name: string;
  labels: StringMap;
  target?: DescriptorMessage | null;
  createdAt?: Timestamp | null;
  updatedAt?: Timestamp | null;
}

export interface ContainerMessage {
  id: string;
  labels: StringMap;
  image: string;
  runtime?: RuntimeMessage | null;
  spec?: AnyMessage | null;
  snapshotter: string;
  snapshotKey: string;
  createdAt?: Timestamp | null;
  updatedAt?: Timestamp | null;
  extensions: AnyMapMessage;
  sandbox: string;
}

export interface SandboxMessage {
  sandboxId: string;
  runtime?: RuntimeMessage | null;
  spec?: AnyMessage | null;
  labels: StringMap;
  createdAt?: Timestamp | null;
  updatedAt?: Timestamp | null;
  extensions: AnyMapMessage;
  sandboxer: string;
}

export interface LeaseMessage {
  id: string;
  createdAt?: Timestamp | null;
  labels: StringMap;
}
export interface ResourceMessage {
  id: string;
  type: string;
}

export interface NamespaceMessage {
  name: string;
  labels: StringMap;
}

export const snapshotKinds = { view: 1, active: 2, committed: 3 } as const;
export interface SnapshotInfoMessage {
  name: string;
  parent?: string;
  kind?: number;
  createdAt?: Timestamp | null;
  updatedAt?: Timestamp | null;
  labels: StringMap;
}

export interface EnvelopeMessage {
  timestamp?: Timestamp | null;
  namespace: string;
  topic: string;
  event?: AnyMessage | null;
}
