/** A root of containerd with trees that are written by ebbtide's own writer, and then changed as a damage would. */
import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type SalvageReport, salvage } from '../../src/any-host/salvage/salvage.js';
import { type Bucket, rootBucket } from '../../src/bolt/bucket.js';
import { encodeMeta, META_BYTES, type Meta, PAGE_HEADER_BYTES } from '../../src/bolt/format.js';
import { PageScan } from '../../src/bolt/scan.js';
import { readBolt } from '../../src/bolt/snapshot.js';
import { MediaType } from '../../src/images/media-types.js';
import { digestOf } from '../../src/model/digest.js';
import { encodeTime, encodeVarint } from '../../src/model/wire.js';
import { tempDir } from '../support/temp.js';
import { type Fields, writeFields } from './root.js';

const PAGE_BYTES = 4096;
const version = encodeVarint(3);

let clock = 1_700_000_000_000_000_000n;
/** Times of creation, each another one. */
export const newTime = (): Uint8Array => encodeTime(clock++);
export function times(): Fields {
  const at = newTime();
  return { createdat: at, updatedat: at };
}

export interface Child {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
}

export interface Image {
  readonly target: Child;
  readonly blobs: readonly Child[];
  readonly chain: string;
}

/** A root of containerd, with the files that its metadata is to lead to. */
export class Host {
  readonly root: string;
  readonly metadata: string;
  readonly #blobs: string;

  constructor(root: string) {
    this.root = root;
    this.#blobs = join(root, 'io.containerd.content.v1.content', 'blobs', 'sha256');
    this.metadata = join(root, 'io.containerd.metadata.v1.bolt', 'meta.db');
    mkdirSync(this.#blobs, { recursive: true });
    mkdirSync(join(this.metadata, '..'));
  }

  file(mediaType: string, content: string | object): Child {
    const bytes = Buffer.from(typeof content === 'string' ? content : JSON.stringify(content));
    const digest = digestOf(bytes);
    writeFileSync(join(this.#blobs, digest.slice(7)), bytes);
    return { mediaType, digest, size: bytes.length };
  }

  /** Of one layer. */
  image(name: string): Image {
    const layer = this.file('application/vnd.oci.image.layer.v1.tar', `layer of ${name}`);
    const chain = digestOf(Buffer.from(`what is in the layer of ${name}`));
    const config = this.file(MediaType.ociConfig, { rootfs: { type: 'layers', diff_ids: [chain] } });
    const target = this.file(MediaType.ociManifest, { schemaVersion: 2, config, layers: [layer] });
    return { target, blobs: [target, config, layer], chain };
  }

  index(manifests: readonly Child[]): Child {
    return this.file(MediaType.ociIndex, { schemaVersion: 2, manifests });
  }

  /** Of the snapshots `<namespace>/<number>/<key>`. */
  async snapshotter(names: readonly string[], snapshotter = 'overlayfs'): Promise<void> {
    const directory = join(this.root, `io.containerd.snapshotter.v1.${snapshotter}`);
    mkdirSync(join(directory, 'snapshots'), { recursive: true });
    const snapshots: Fields = {};
    for (const [n, name] of names.entries())
      snapshots[name] = { ...times(), id: encodeVarint(n + 1), kind: Uint8Array.of(3) };
    await writeFields(join(directory, 'metadata.db'), { v1: { snapshots } });
  }

  /** @param trees the newest one, and older ones */
  async write(newest: Fields, ...older: Fields[]): Promise<Damaged> {
    const trees = [newest, ...older].map((namespaces, n) => [
      `tree ${n}`,
      { v1: { version, ...namespaces } },
    ]);
    await writeFields(this.metadata, Object.fromEntries(trees) as Fields);
    return new Damaged(this.metadata);
  }
}

const blob = ({ size }: Child): Fields => ({
  ...times(),
  size: encodeVarint(size),
  labels: { pulled: 'here' },
});
export const blobs = (all: readonly Child[]): Fields => ({
  blob: Object.fromEntries(all.map((one) => [one.digest, blob(one)])),
});
export const image = ({ digest, mediaType, size }: Child): Fields => ({
  ...times(),
  target: { digest, mediatype: mediaType, size: encodeVarint(size) },
});

/** The file as it is on disk, to be changed. The bucket that each tree is in leads to the pages of the others. */
class Damaged {
  readonly bytes: Buffer;
  readonly #path: string;
  readonly #scan: PageScan;

  constructor(path: string) {
    this.#path = path;
    this.bytes = readFileSync(path);
    this.#scan = new PageScan(path);
  }

  /** The page of a bucket, and where the number of that page stands. */
  find(path: readonly string[], tree = 0): { page: number; at: number } {
    let page = this.#scan.metas[0]?.root ?? 0;
    let at = 0;
    for (const name of [`tree ${tree}`, ...path]) {
      const found = this.#scan.page(page);
      assert.ok(found?.kind === 'leaf');
      const entry = found.entries.find(({ key }) => key === name);
      assert.ok(entry?.isBucket, path.join('/'));
      at =
        this.bytes.indexOf(Buffer.concat([Buffer.from(name), entry.value]), page * PAGE_BYTES) + name.length;
      page = Number(entry.value.readBigUInt64LE());
      assert.ok(page !== 0, `${path.join('/')} has no page of its own`);
    }
    return { page, at };
  }

  lose(path: readonly string[], tree = 0): void {
    const { page } = this.find(path, tree);
    this.bytes.fill(0, page * PAGE_BYTES, (page + 1) * PAGE_BYTES);
  }

  /** A bucket leads to what is another's page. */
  alias(path: readonly string[], tree: number, to: number): void {
    this.bytes.writeBigUInt64LE(BigInt(to), this.find(path, tree).at);
  }

  /** The text of a record, or of a bucket's entries, is another one of the same length. */
  flip(path: readonly string[], from: string, to: string): void {
    const { page } = this.find(path);
    const at = this.bytes.subarray(page * PAGE_BYTES, (page + 1) * PAGE_BYTES).indexOf(from);
    assert.ok(at >= 0 && from.length === to.length);
    this.bytes.write(to, page * PAGE_BYTES + at);
  }

  /** @param named what the meta pages say, if it is not the newest tree; `lost`: they are lost */
  async salvage(
    t: TestContext,
    named: Partial<Meta> | 'lost' = {},
  ): Promise<{ report: SalvageReport; records: string[] }> {
    const [meta] = this.#scan.metas;
    assert.ok(meta);
    if (named === 'lost') this.bytes.fill(0, 0, 2 * PAGE_BYTES);
    else this.#name(meta, named);
    this.#scan[Symbol.dispose]();
    writeFileSync(this.#path, this.bytes);
    const output = join(await tempDir(t), 'meta.db');
    const report = await salvage(join(this.#path, '..', '..'), output);
    return { report, records: await recordsIn(output) };
  }

  #name(meta: Meta, named: Partial<Meta>): void {
    const { page } = this.find([]);
    for (const n of [0, 1]) {
      const transaction = meta.transaction + BigInt(n);
      const next: Meta = { ...meta, root: page, transaction, ...named };
      encodeMeta(next, 2).copy(this.bytes, n * PAGE_BYTES + PAGE_HEADER_BYTES, 0, META_BYTES);
    }
  }
}

const COLLECTIONS = ['images', 'containers', 'leases', 'content/blob', 'snapshots/overlayfs'];

/** `namespace/kind key` of all. */
export async function recordsIn(path: string): Promise<string[]> {
  const records: string[] = [];
  const visit = (bucket: Bucket, at: string): void =>
    bucket.each(({ key, bucket: inner }) => {
      if (COLLECTIONS.includes(at.split('/').slice(1).join('/'))) records.push(`${at} ${key}`);
      else if (inner !== undefined) visit(inner, at === '' ? key : `${at}/${key}`);
    });
  rootBucket(await readBolt(path)).find('v1', ({ bucket }) => bucket && visit(bucket, ''));
  return records;
}
