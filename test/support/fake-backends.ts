/** Backends in memory that remember what was asked of them and fail on demand. */
import type {
  BackendWriter,
  BlobReader,
  ContentBackend,
  ContentInfo,
  IngestStatus,
  Mount,
  RemovalReport,
  SnapshotInfo,
  SnapshotKind,
  SnapshotterBackend,
  Usage,
  WriterDescriptor,
} from '../../src/backends/contract.js';
import {
  alreadyExists,
  failedPrecondition,
  notFound,
  notImplemented,
  unavailable,
} from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';

/** Blobs and ingests by name; bytes of the blobs that were written. */
export class FakeContent implements ContentBackend {
  readonly blobs = new Map<string, number>();
  readonly ingests = new Set<string>();
  readonly #open = new Set<string>();
  readonly #parts = new Map<string, Buffer[]>();
  readonly #bytes = new Map<string, Buffer>();
  /** Everything deleted or aborted, in order. */
  readonly log: string[] = [];
  walks = 0;
  /** Thrown by the next deletions and aborts, while set. */
  failure: Error | undefined;
  /** Called before a blob is deleted. */
  beforeDelete: (digest: string) => Promise<void> = async () => {};

  /** The process that had refs open has died. */
  died(): void {
    this.#open.clear();
  }

  /** A blob with its bytes. */
  put(digest: string, bytes: Buffer): void {
    this.blobs.set(digest, bytes.length);
    this.#bytes.set(digest, bytes);
  }

  async info(digest: string): Promise<ContentInfo> {
    const size = this.blobs.get(digest);
    if (size === undefined) throw notFound(`blob ${digest}`);
    return { digest, size, createdAt: 0n, updatedAt: 0n, labels: {} };
  }

  async readerAt(digest: string): Promise<BlobReader> {
    const { size } = await this.info(digest);
    const bytes = this.#bytes.get(digest);
    if (bytes === undefined) throw notImplemented('no bytes here');
    return {
      size,
      read: async (buffer, position) => bytes.copy(buffer, 0, position),
      stream: async function* (start = 0, end = size) {
        yield bytes.subarray(start, end);
      },
      close: async () => {},
      [Symbol.asyncDispose]: async () => {},
    };
  }

  async walk(fn: (info: ContentInfo) => Promise<void> | void): Promise<void> {
    this.walks++;
    for (const digest of [...this.blobs.keys()]) await fn(await this.info(digest));
  }

  async delete(digest: string): Promise<void> {
    await this.beforeDelete(digest);
    if (this.failure) throw this.failure;
    if (this.blobs.delete(digest)) this.log.push(`delete ${digest}`);
  }

  async status(ref: string): Promise<IngestStatus> {
    if (!this.ingests.has(ref)) throw notFound(`ingest ${ref}`);
    return { ref, offset: 0, total: 0, startedAt: 0n, updatedAt: 0n };
  }

  async listStatuses(): Promise<IngestStatus[]> {
    return Promise.all([...this.ingests].map((ref) => this.status(ref)));
  }

  async abort(ref: string): Promise<void> {
    if (this.failure) throw this.failure;
    this.#parts.delete(ref);
    if (this.ingests.delete(ref)) this.log.push(`abort ${ref}`);
  }

  async writer(ref: string, _desc: WriterDescriptor): Promise<BackendWriter> {
    if (this.#open.has(ref)) throw unavailable(`ingest ${ref} is open`);
    this.#open.add(ref);
    this.ingests.add(ref);
    const parts = this.#parts.get(ref) ?? [];
    this.#parts.set(ref, parts);
    const bytes = (): Buffer => Buffer.concat(parts);
    let closed = false;
    const close = async (): Promise<void> => {
      if (!closed) this.#open.delete(ref);
      closed = true;
    };
    return {
      ref,
      status: async () => ({ ref, offset: bytes().length, total: 0, startedAt: 0n, updatedAt: 0n }),
      digest: () => digestOf(bytes()),
      write: async (part) => parts.push(Buffer.from(part)) && part.length,
      truncate: async () => void parts.splice(0),
      sync: async () => {},
      close,
      commit: async (size, expected) => {
        await close();
        const all = bytes();
        const digest = digestOf(all);
        if ((size !== 0 && size !== all.length) || (expected !== '' && expected !== digest)) {
          throw failedPrecondition('not what was expected');
        }
        this.ingests.delete(ref);
        this.#parts.delete(ref);
        if (this.blobs.has(digest)) throw alreadyExists(`blob ${digest}`);
        this.put(digest, all);
      },
    };
  }
}

interface Item {
  kind: SnapshotKind;
  parent: string;
}

/** A snapshotter that keeps its contract about parents and children. */
export class FakeSnapshotter implements SnapshotterBackend {
  readonly items = new Map<string, Item>();
  readonly log: string[] = [];
  walks = 0;
  cleanups = 0;
  /** Names whose removal fails, and how. */
  readonly failures = new Map<string, Error>();
  /** What `cleanup` does. */
  onCleanup: () => Promise<RemovalReport | undefined> = async () => undefined;
  beforeRemove: (key: string) => Promise<void> = async () => {};

  /** Puts an item there as if it had been prepared and committed. */
  add(name: string, parent = '', kind: SnapshotKind = 'committed'): void {
    this.items.set(name, { kind, parent });
  }

  async stat(key: string): Promise<SnapshotInfo> {
    const item = this.items.get(key);
    if (item === undefined) throw notFound(`snapshot ${key}`);
    return { ...item, name: key, labels: {}, created: 0n, updated: 0n };
  }

  async update(info: SnapshotInfo): Promise<SnapshotInfo> {
    return this.stat(info.name);
  }

  async usage(key: string): Promise<Usage> {
    await this.stat(key);
    return { inodes: 1, size: 4096 };
  }

  async mounts(): Promise<Mount[]> {
    return [];
  }

  async prepare(key: string, parent: string): Promise<Mount[]> {
    return this.#make(key, parent, 'active');
  }

  async view(key: string, parent: string): Promise<Mount[]> {
    return this.#make(key, parent, 'view');
  }

  async commit(name: string, key: string): Promise<void> {
    const { parent } = await this.stat(key);
    if (this.items.has(name)) throw alreadyExists(`snapshot ${name}`);
    this.items.delete(key);
    this.add(name, parent);
  }

  async remove(key: string): Promise<void> {
    await this.beforeRemove(key);
    const failure = this.failures.get(key);
    if (failure) throw failure;
    await this.stat(key);
    for (const { parent } of this.items.values()) {
      if (parent === key) throw failedPrecondition(`cannot remove ${key}: it has children`);
    }
    this.items.delete(key);
    this.log.push(key);
  }

  async walk(fn: (info: SnapshotInfo) => Promise<void> | void): Promise<void> {
    this.walks++;
    for (const name of [...this.items.keys()]) await fn(await this.stat(name));
  }

  async cleanup(): Promise<RemovalReport | undefined> {
    this.cleanups++;
    return this.onCleanup();
  }

  async close(): Promise<void> {}

  async #make(key: string, parent: string, kind: SnapshotKind): Promise<Mount[]> {
    if (this.items.has(key)) throw alreadyExists(`snapshot ${key}`);
    if (parent !== '') await this.stat(parent);
    this.add(key, parent, kind);
    return [];
  }
}
