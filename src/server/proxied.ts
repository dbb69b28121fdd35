/**
 * The store as the back end of a real containerd: what its proxy plugins need of a content store and of
 * snapshotters. containerd keeps namespaces, labels and references itself and calls without any of them, so
 * everything created here is in one namespace of its own and kept by a root label until containerd deletes
 * it. The label is never shown.
 *
 * Deleting frees the disk with the next collection, which is requested at once; containerd's cleanup after
 * its own collection waits for it. Called by daemon.ts for the socket that `--proxy-address` names; the
 * services on it are the ordinary ones.
 */
import type { ContentInfo, Mount, SnapshotInfo, Usage, WriterDescriptor } from '../backends/contract.js';
import type { CallContext } from '../context.js';
import type { DB } from '../db.js';
import { Label } from '../model/labels.js';
import type { StringMap } from '../model/records.js';
import type { ContentInput } from '../stores/content/content.js';
import type { CommitOptions, ContentWriter } from '../stores/content/content-writer.js';
import type { SnapshotInput } from '../stores/snapshots.js';
import type { ServedContent } from './services/content.js';
import type { ServedSnapshotter } from './services/snapshots.js';

const NAMESPACE = 'io.containerd.proxy';
const KEPT = { [Label.gcRoot]: 'containerd' };

const inside = ({ signal }: CallContext): CallContext => ({ namespace: NAMESPACE, signal });
const kept = (labels: StringMap | undefined): StringMap => ({ ...labels, ...KEPT });
const shown = <T extends { labels: StringMap }>(info: T): T => {
  const { [Label.gcRoot]: _, ...labels } = info.labels;
  return { ...info, labels };
};

/** An update without paths replaces all labels, including the root label unless it is given. */
const keptInput = <T extends { labels?: StringMap | undefined }>(input: T): T => ({
  ...input,
  labels: kept(input.labels),
});

/** A failure is reported with the collection. */
const background = (run: Promise<unknown>): void => {
  run.catch(() => undefined);
};

export class ProxiedContent implements ServedContent {
  readonly #store: DB['content'];
  readonly #collect: () => Promise<unknown>;

  constructor(store: DB['content'], collect: () => Promise<unknown>) {
    this.#store = store;
    this.#collect = collect;
  }

  async info(ctx: CallContext, digest: string): Promise<ContentInfo> {
    return shown(await this.#store.info(inside(ctx), digest));
  }
  async update(ctx: CallContext, info: ContentInput, ...paths: string[]): Promise<ContentInfo> {
    return shown(await this.#store.update(inside(ctx), keptInput(info), ...paths));
  }
  walk(
    ctx: CallContext,
    fn: (info: ContentInfo) => Promise<void> | void,
    ...filters: string[]
  ): Promise<void> {
    return this.#store.walk(inside(ctx), (info) => fn(shown(info)), ...filters);
  }
  async delete(ctx: CallContext, digest: string): Promise<void> {
    await this.#store.delete(inside(ctx), digest);
    background(this.#collect());
  }
  status: ServedContent['status'] = (ctx, ref) => this.#store.status(inside(ctx), ref);
  listStatuses: ServedContent['listStatuses'] = (ctx, ...filters) =>
    this.#store.listStatuses(inside(ctx), ...filters);
  abort: ServedContent['abort'] = (ctx, ref) => this.#store.abort(inside(ctx), ref);
  has: ServedContent['has'] = (ctx, digest) => this.#store.has(inside(ctx), digest);
  readerAt: ServedContent['readerAt'] = (ctx, content) => this.#store.readerAt(inside(ctx), content);

  async writer(ctx: CallContext, ref: string, descriptor: WriterDescriptor = {}): Promise<ContentWriter> {
    return new KeptWriter(await this.#store.writer(inside(ctx), ref, descriptor));
  }
}

/** Commits with the label that keeps the blob. */
class KeptWriter implements ContentWriter {
  readonly ref: string;
  readonly #writer: ContentWriter;

  constructor(writer: ContentWriter) {
    this.ref = writer.ref;
    this.#writer = writer;
  }

  status: ContentWriter['status'] = () => this.#writer.status();
  digest: ContentWriter['digest'] = () => this.#writer.digest();
  write: ContentWriter['write'] = (bytes) => this.#writer.write(bytes);
  truncate: ContentWriter['truncate'] = (size) => this.#writer.truncate(size);
  sync: ContentWriter['sync'] = () => this.#writer.sync();
  close: ContentWriter['close'] = () => this.#writer.close();
  commit(size: number, expected: string, options: CommitOptions = {}): Promise<void> {
    return this.#writer.commit(size, expected, { ...options, labels: kept(options.labels) });
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

interface Options {
  labels?: StringMap | undefined;
  parent?: string;
}

export class ProxiedSnapshotter implements ServedSnapshotter {
  readonly #store: ServedSnapshotter;
  readonly #collect: () => Promise<unknown>;

  constructor(store: ServedSnapshotter, collect: () => Promise<unknown>) {
    this.#store = store;
    this.#collect = collect;
  }

  async stat(ctx: CallContext, key: string): Promise<SnapshotInfo> {
    return shown(await this.#store.stat(inside(ctx), key));
  }
  usage(ctx: CallContext, key: string): Promise<Usage> {
    return this.#store.usage(inside(ctx), key);
  }
  mounts(ctx: CallContext, key: string): Promise<Mount[]> {
    return this.#store.mounts(inside(ctx), key);
  }
  async update(ctx: CallContext, info: SnapshotInput, ...paths: string[]): Promise<SnapshotInfo> {
    return shown(await this.#store.update(inside(ctx), keptInput(info), ...paths));
  }
  prepare(ctx: CallContext, key: string, parent: string, options: Options = {}): Promise<Mount[]> {
    return this.#store.prepare(inside(ctx), key, parent, keptInput(options));
  }
  view(ctx: CallContext, key: string, parent: string, options: Options = {}): Promise<Mount[]> {
    return this.#store.view(inside(ctx), key, parent, keptInput(options));
  }
  commit(ctx: CallContext, name: string, key: string, options: Options = {}): Promise<void> {
    return this.#store.commit(inside(ctx), name, key, keptInput(options));
  }
  async remove(ctx: CallContext, key: string): Promise<void> {
    await this.#store.remove(inside(ctx), key);
    background(this.#collect());
  }
  walk(
    ctx: CallContext,
    fn: (info: SnapshotInfo) => Promise<void> | void,
    ...filters: string[]
  ): Promise<void> {
    return this.#store.walk(inside(ctx), (info) => fn(shown(info)), ...filters);
  }
  async cleanup(): Promise<undefined> {
    await this.#collect();
  }
}

/**
 * The snapshotter for a plugin's name. containerd asks by the name of its plugin, which may differ from that
 * of a built-in one, so `anything-overlayfs` means `overlayfs`.
 */
export function snapshotterBehind(db: DB, plugin: string): ServedSnapshotter | undefined {
  for (const [name, snapshotter] of db.snapshotters()) {
    if (plugin === name || plugin.endsWith(`-${name}`)) return snapshotter;
  }
  return undefined;
}
