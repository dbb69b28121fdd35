/** The records that are left, as a file that containerd opens. Called by salvage.ts. */
import { BoltWriter } from '../../bolt/writer.js';
import { encodeVarint } from '../../model/wire.js';
import { inTurns, type Steps } from '../../system/turns.js';
import type { Disk } from './disk.js';
import type { Kept, Merge } from './merge.js';
import type { Pages } from './pages.js';
import type { Rebuilt } from './rebuild.js';
import {
  backendName,
  backendNameOf,
  kindIn,
  type Path,
  readTree,
  type Tree,
  textOf,
  treeIn,
} from './shapes.js';
import { pathKey } from './walk.js';

/** Where the file says none: containerd 2 brings it up to date, and a 1.x takes it as it is. */
export const GUESSED_VERSION = 3;

interface Node {
  readonly path: Path;
  readonly buckets: Map<string, Node>;
  readonly records: Map<string, Kept | Rebuilt>;
}

export interface Written {
  /** Bytes. */
  readonly size: number;
  readonly hasVersion: boolean;
  /** Snapshots whose parent is lost. */
  readonly withoutParent: string[];
}

export async function writeRecords(
  path: string,
  pages: Pages,
  merge: Merge,
  rebuilt: readonly Rebuilt[],
  disk: Disk,
  signal?: AbortSignal,
): Promise<Written> {
  const root: Node = { path: [], buckets: new Map(), records: new Map() };
  for (const at of merge.sequences.keys()) if (at !== '') nodeAt(root, at.split('\0'));
  for (const { path: bucket, records } of merge.collections) {
    const node = nodeAt(root, bucket);
    for (const [key, record] of records) node.records.set(key, record);
  }
  for (const one of rebuilt) nodeAt(root, one.path).records.set(one.key, one);
  const schema = nodeAt(root, ['v1']);
  const hasVersion = schema.records.has('version');
  await using writer = await BoltWriter.create(path, { pageSize: pages.scan.pageSize });
  const out = new TreeWriter(writer, pages, merge, disk, hasVersion);
  await inTurns(out.node(root), signal);
  return { size: await writer.finish(), hasVersion, withoutParent: out.withoutParent };
}

function nodeAt(root: Node, path: Path): Node {
  let node = root;
  for (const [depth, name] of path.entries()) {
    let next = node.buckets.get(name);
    if (next === undefined) {
      next = { path: path.slice(0, depth + 1), buckets: new Map(), records: new Map() };
      node.buckets.set(name, next);
    }
    node = next;
  }
  return node;
}

const keyBytes = (key: string): Buffer => Buffer.from(key, 'latin1');

class TreeWriter {
  readonly withoutParent: string[] = [];
  readonly #writer: BoltWriter;
  readonly #pages: Pages;
  readonly #merge: Merge;
  readonly #disk: Disk;
  readonly #hasVersion: boolean;

  constructor(writer: BoltWriter, pages: Pages, merge: Merge, disk: Disk, hasVersion: boolean) {
    this.#writer = writer;
    this.#pages = pages;
    this.#merge = merge;
    this.#disk = disk;
    this.#hasVersion = hasVersion;
  }

  *node(node: Node): Steps {
    const { path, buckets, records } = node;
    const children = kindIn(path) === 'snapshot' ? yield* this.#childrenIn(records) : undefined;
    const keys = new Set([...buckets.keys(), ...records.keys()]);
    if (pathKey(path) === 'v1' && !this.#hasVersion) keys.add('version');
    for (const key of [...keys].sort(byBytes)) {
      const bucket = buckets.get(key);
      if (bucket !== undefined) {
        this.#writer.openBucket(keyBytes(key), yield* this.#sequenceOf(bucket));
        yield* this.node(bucket);
        this.#writer.closeBucket();
        continue;
      }
      const record = records.get(key);
      if (record === undefined) this.#writer.put(keyBytes(key), Buffer.from(encodeVarint(GUESSED_VERSION)));
      else this.#record(key, record, children);
      yield this.#writer.isBehind ? this.#writer.drain() : undefined;
    }
  }

  #record(key: string, record: Kept | Rebuilt, children: ReadonlyMap<string, string[]> | undefined): void {
    if ('value' in record && !record.isBucket) {
      this.#writer.put(keyBytes(key), record.value);
      return;
    }
    const tree = 'tree' in record ? record.tree : readTree(this.#pages, record.value);
    if (tree === undefined) return;
    this.#tree(key, children === undefined ? tree : withChildren(tree, children.get(key) ?? []));
  }

  #tree(key: string, { sequence, entries }: Tree): void {
    this.#writer.openBucket(keyBytes(key), sequence);
    for (const [name, one] of [...entries].sort(([a], [b]) => byBytes(a, b))) {
      if (Buffer.isBuffer(one)) this.#writer.put(keyBytes(name), one);
      else this.#tree(name, one);
    }
    this.#writer.closeBucket();
  }

  /** By parent: containerd keeps both directions, and one of them may be lost. */
  *#childrenIn(records: ReadonlyMap<string, Kept | Rebuilt>): Steps<Map<string, string[]>> {
    const children = new Map<string, string[]>();
    for (const [key, record] of records) {
      yield;
      const parent = 'tree' in record ? textOf(record.tree.entries.get('parent')) : record.facts.parent;
      if (parent === undefined || parent === '') continue;
      if (!records.has(parent)) this.withoutParent.push(key);
      const others = children.get(parent);
      if (others === undefined) children.set(parent, [key]);
      else others.push(key);
    }
    return children;
  }

  /** Numbers of snapshots are given once: never below one that a snapshot has, here or in its snapshotter. */
  *#sequenceOf({ path, records }: Node): Steps<number> {
    let last = this.#merge.sequences.get(pathKey(path)) ?? 0;
    if (kindIn(path) !== 'snapshot') return last;
    for (const record of records.values()) {
      yield;
      const name = 'tree' in record ? backendNameOf(record.tree) : record.facts.name;
      last = Math.max(last, name?.number ?? 0);
    }
    const [, namespace, , snapshotter = ''] = path;
    const stored = this.#disk.snapshots.get(Buffer.from(snapshotter, 'latin1').toString());
    for (const name of stored?.keys() ?? []) {
      yield;
      const found = backendName(Buffer.from(name).toString('latin1'));
      if (found !== undefined && found.namespace === namespace) last = Math.max(last, found.number);
    }
    return last;
  }
}

/** Latin-1 text has the order of its bytes. */
const byBytes = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

function withChildren(tree: Tree, children: readonly string[]): Tree {
  const known = treeIn(tree, 'children');
  const isRight =
    (known?.entries.size ?? 0) === children.length && children.every((key) => known?.entries.has(key));
  if (isRight) return tree;
  const entries = new Map(tree.entries);
  entries.set('children', {
    sequence: 0,
    entries: new Map(children.map((key) => [key, Buffer.alloc(0)])),
    isSplit: false,
  });
  return { ...tree, entries };
}
