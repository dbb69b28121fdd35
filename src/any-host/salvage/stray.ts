/**
 * Leaves of records that no tree leads to. Such a leaf has the names of its records, but not that of its namespace: that is known from
 * names that are in the records (snapshots, ingests), from what they refer to, and from pages that lead to several of these leaves. What
 * nothing places is left out. Called by salvage.ts.
 */
import type { LeafPage, PageScan } from '../../bolt/scan.js';
import type { Disk } from './disk.js';
import type { Merge } from './merge.js';
import {
  backendName,
  backendNameOf,
  COLLECTION_PATHS,
  changedAt,
  kindOf,
  type Path,
  type RecordKind,
  readTree,
  type Tree,
} from './shapes.js';
import { areWithin, type FoundRecord } from './walk.js';

type Stray = Omit<FoundRecord, 'path' | 'isDoubtful'> & { readonly kind: RecordKind; readonly tree: Tree };

interface Leaf {
  readonly page: number;
  readonly records: readonly Stray[];
  /** It leads to pages of other records as well: it was replaced by another leaf. */
  readonly isOld: boolean;
}

export class StrayLeaves {
  readonly #scan: PageScan;
  readonly #merge: Merge;
  readonly #disk: Disk;
  /** Pages of the same namespace have the same root in it. */
  readonly #above = new Map<number, number>();

  constructor(scan: PageScan, merge: Merge, disk: Disk) {
    this.#scan = scan;
    this.#merge = merge;
    this.#disk = disk;
  }

  /** Adds what can be placed. Returns how many records cannot. */
  add(): number {
    const leaves: Leaf[] = [];
    for (const id of this.#scan.ids) {
      const page = this.#merge.isTaken(id) ? undefined : this.#scan.page(id);
      if (page === undefined) continue;
      this.#join(id);
      const leaf = page.kind === 'leaf' ? this.#read(page) : undefined;
      if (leaf !== undefined && leaf.records.length > 0) leaves.push(leaf);
    }
    return this.#place(leaves);
  }

  #read({ id, entries }: LeafPage): Leaf | undefined {
    // Buckets of buckets have everything below them.
    if (!entries.every(({ key, isBucket }) => isBucket && key !== 'v1' && !PARTS.has(key))) return undefined;
    const records: Stray[] = [];
    let isOld = false;
    for (const { key, value } of entries) {
      const pages: number[] = [];
      const tree = readTree(this.#scan, value, pages);
      if (tree === undefined) continue;
      const kind = kindOf(key, tree);
      isOld ||= kind === undefined || pages.some((page) => this.#merge.isTaken(page, key));
      if (kind !== undefined)
        records.push({ key, value, pages, isBucket: true, changedAt: changedAt(tree), kind, tree });
    }
    return { page: id, records, isOld };
  }

  // ------------------------------------------------------------------------------------- leaves of one namespace

  #rootOf(id: number): number {
    let root = id;
    for (let next = this.#above.get(root); next !== undefined; next = this.#above.get(root)) root = next;
    return root;
  }

  /** A page and those that it leads to are of one namespace, unless one of these was given out again since. */
  #join(id: number): void {
    const children = this.#childrenOf(id);
    if (children === undefined) return;
    for (const child of children) {
      const [a, b] = [this.#rootOf(id), this.#rootOf(child)];
      if (a !== b) this.#above.set(b, a);
    }
  }

  #childrenOf(id: number): number[] | undefined {
    const page = this.#scan.page(id);
    if (page?.kind === 'branch') {
      const kinds = new Set<RecordKind>();
      for (const [n, { key, page: child }] of page.children.entries()) {
        const below = this.#scan.page(child);
        if (below === undefined) continue;
        if (!areWithin(below, key, page.children[n + 1]?.key)) return undefined;
        const kind = this.#kindOf(child);
        if (kind !== undefined) kinds.add(kind);
      }
      return kinds.size > 1 ? undefined : page.children.map((child) => child.page);
    }
    if (page?.kind !== 'leaf' || !page.entries.every(({ key, isBucket }) => isBucket && PARTS.has(key)))
      return undefined;
    const children: number[] = [];
    for (const { key, value } of page.entries) {
      const child = this.#scan.bucket(value)?.page ?? 0;
      if (child === 0) continue;
      const expected = PARTS.get(key);
      const kind = this.#kindOf(child);
      if (expected !== undefined && kind !== undefined && kind !== expected) return undefined;
      children.push(child);
    }
    return children;
  }

  /** Of the first record below. */
  #kindOf(id: number, depth = 0): RecordKind | undefined {
    const page = this.#scan.page(id);
    if (page?.kind === 'branch') {
      const [first] = page.children;
      return first && depth <= BRANCHES_MAX ? this.#kindOf(first.page, depth + 1) : undefined;
    }
    for (const { key, isBucket, value } of page?.entries ?? []) {
      const tree = isBucket ? readTree(this.#scan, value) : undefined;
      const kind = tree && kindOf(key, tree);
      if (kind !== undefined) return kind;
    }
    return undefined;
  }

  // ----------------------------------------------------------------------------------------------------- placing

  /**
   * A leaf by its own records, else by the others of its group, if these agree. Each round makes more names known, to which
   * others refer.
   */
  #place(leaves: readonly Leaf[]): number {
    let waiting = leaves;
    const found = new Map<number, Set<string>>();
    for (;;) {
      const known = new KnownNames(this.#merge, this.#disk);
      const rest: Leaf[] = [];
      for (const leaf of waiting) {
        const root = this.#rootOf(leaf.page);
        const own = known.namespaceOf(leaf.records);
        const others = found.get(root) ?? new Set();
        if (own !== undefined) found.set(root, others.add(own));
        const namespace = own ?? (others.size === 1 ? [...others][0] : undefined);
        if (namespace === undefined) rest.push(leaf);
        else this.#add(leaf, namespace);
      }
      if (rest.length === waiting.length) break;
      waiting = rest;
    }
    const open = new Set<string>();
    for (const { records } of waiting)
      for (const { kind, key, changedAt: time } of records)
        if (this.#isOpenAnywhere(kind, key, time)) open.add(`${kind}\0${key}`);
    return open.size;
  }

  #add({ records, isOld }: Leaf, namespace: string): void {
    for (const { kind, tree, ...record } of records) {
      const path = kind === 'snapshot' ? this.#snapshotPath(tree) : pathIn(namespace, kind);
      if (path !== undefined) this.#merge.addStray({ ...record, path, isDoubtful: isOld });
    }
  }

  #isOpenAnywhere(kind: RecordKind, key: string, time: bigint): boolean {
    return [...this.#merge.namespaces()].some((namespace) => {
      const path = pathIn(namespace, kind);
      return path !== undefined && !this.#merge.has(path, key) && this.#merge.isOpen(path, key, time);
    });
  }

  #snapshotPath(tree: Tree): Path | undefined {
    const name = backendNameOf(tree);
    if (name === undefined) return undefined;
    const stored = Buffer.from(`${name.namespace}/${name.number}/${name.key}`, 'latin1').toString();
    const [owner, other] = [...this.#disk.snapshots].filter(([, all]) => all.has(stored));
    if (owner === undefined || other !== undefined) return undefined;
    return ['v1', name.namespace, 'snapshots', Buffer.from(owner[0]).toString('latin1')];
  }
}

const BRANCHES_MAX = 20;

/** What a namespace, and its content, have, and which records are in it. */
const PARTS: ReadonlyMap<string, RecordKind | undefined> = new Map([
  ['containers', 'container'],
  ['content', undefined],
  ['images', 'image'],
  ['labels', undefined],
  ['leases', 'lease'],
  ['sandboxes', 'sandbox'],
  ['snapshots', undefined],
  ['blob', 'content'],
  ['ingests', 'ingest'],
]);

const pathIn = (namespace: string, kind: RecordKind): Path | undefined => {
  const inner = COLLECTION_PATHS[kind];
  return inner && ['v1', namespace, ...inner];
};

/** Which namespaces have a record of a name, or a snapshot. */
class KnownNames {
  readonly #namespaces = new Map<string, Set<string>>();

  constructor(merge: Merge, { snapshots }: Disk) {
    for (const { path, records } of merge.collections) {
      const [schema, namespace, part] = path;
      if (schema !== 'v1' || namespace === undefined || part === undefined) continue;
      for (const key of records.keys()) this.#add(key, namespace);
    }
    for (const all of snapshots.values())
      for (const stored of all.keys()) {
        const name = backendName(Buffer.from(stored).toString('latin1'));
        if (name !== undefined) this.#add(name.key, name.namespace);
      }
  }

  #add(name: string, namespace: string): void {
    const known = this.#namespaces.get(name);
    if (known === undefined) this.#namespaces.set(name, new Set([namespace]));
    else known.add(namespace);
  }

  /** The only one that has what the records are called, and refer to. */
  namespaceOf(records: readonly Stray[]): string | undefined {
    const votes = new Map<string, number>();
    const vote = (namespace: string, weight: number): void => {
      votes.set(namespace, (votes.get(namespace) ?? 0) + weight);
    };
    for (const { key, tree, kind } of records) {
      const own = kind === 'snapshot' || kind === 'ingest' ? backendNameOf(tree) : undefined;
      if (own?.key === key) vote(own.namespace, CERTAIN);
      for (const name of [key, ...namesIn(tree)]) {
        const known = this.#namespaces.get(name);
        // What several have says nothing.
        if (known?.size === 1) for (const namespace of known) vote(namespace, 1);
      }
    }
    const [first, ...others] = [...votes].sort((a, b) => b[1] - a[1]);
    const isSure = first !== undefined && (others.length === 0 || first[1] >= CERTAIN);
    return isSure ? first[0] : undefined;
  }
}

/** More than a leaf has references. */
const CERTAIN = 1_000_000;

/** What a record may refer to: digests and keys, in its fields and the names of these. */
function* namesIn(tree: Tree): Generator<string> {
  for (const [name, one] of tree.entries) {
    yield name;
    if (!Buffer.isBuffer(one)) yield* namesIn(one);
    else if (one.length > 1 && one.length < 300) yield one.toString('latin1');
  }
}
