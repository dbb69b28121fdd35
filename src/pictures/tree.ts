/**
 * The tree of a picture: host, namespaces, roots, leaves. A leaf is under the one root that keeps it, or with what several
 * keep, so that the bytes of a root's branch are what its removal would free, and every leaf is there once. Called by picture.ts.
 */
import type { DiskReport } from '../gc/report/disk-report.js';
import { type Leaves, leafKinds } from './leaves.js';
import { KEEPERS_MAX, NOBODY, SEVERAL, type Support } from './support.js';

/** A root: what keeps itself. */
export interface PictureRoot {
  readonly id: number;
  /** image, container, lease, ingest, sandbox; content or snapshot with a label, or in use according to a collector. */
  readonly kind: string;
  readonly namespace: string;
  /** Image name, id, ref, digest, `<snapshotter>/<key>`. */
  readonly name: string;
}

export type BranchKind = 'host' | 'namespace' | 'group' | 'garbage' | 'orphans' | 'files' | 'root';

export interface Branch {
  readonly kind: BranchKind;
  readonly name: string;
  /** Of all that is below. */
  readonly bytes: number;
  /** Of a root: its number in the picture. */
  readonly root?: number;
  readonly children: readonly Branch[];
  /** Leaves of its own: `order[first]` to `order[end - 1]` of the tree. */
  readonly first: number;
  readonly end: number;
}

export interface Tree {
  readonly host: Branch;
  /** Numbers of leaves. */
  readonly order: Uint32Array;
}

/** Where leaves are that several roots keep, by how many. */
const buckets = [
  { name: 'shared by 2', most: 2 },
  { name: 'shared by 3-9', most: KEEPERS_MAX - 1 },
  { name: 'shared by more', most: KEEPERS_MAX },
] as const;

/** In which branch of its namespace a root is; images are in the namespace itself. */
const groupOf: Readonly<Record<string, string>> = {
  container: 'containers',
  lease: 'leases',
  ingest: 'ingests',
  sandbox: 'sandboxes',
  content: 'labelled',
  snapshot: 'labelled',
};

interface Parts {
  readonly leaves: Leaves;
  readonly support: Support;
  readonly roots: readonly PictureRoot[];
  readonly namespaces: readonly string[];
  readonly disk: DiskReport | undefined;
  /** What the host's branch is called. */
  readonly name: string;
}

export function treeOf(parts: Parts): Tree {
  const builder = new Builder(parts);
  return { host: builder.host(), order: builder.order };
}

class Builder {
  readonly order: Uint32Array;
  readonly #parts: Parts;
  /** Place by leaf, and of each place where its leaves begin in the order, and their bytes. */
  readonly #places: Uint32Array;
  readonly #starts: Uint32Array;
  readonly #bytes: Float64Array;
  /** Places after those of the roots: shared ones by namespace, shared by several, garbage by kind, orphans. */
  readonly #several: number;
  readonly #garbage: number;
  readonly #orphans: number;

  constructor(parts: Parts) {
    this.#parts = parts;
    const { leaves, roots, namespaces } = parts;
    this.#several = roots.length + namespaces.length * buckets.length;
    this.#garbage = this.#several + buckets.length;
    this.#orphans = this.#garbage + leafKinds.length;
    const length = leaves.count;
    this.#places = new Uint32Array(length);
    this.#starts = new Uint32Array(this.#orphans + 2);
    this.#bytes = new Float64Array(this.#orphans + 1);
    for (let leaf = 0; leaf < length; leaf++) {
      const place = this.#placeOf(leaf);
      this.#places[leaf] = place;
      this.#starts[place + 1] = (this.#starts[place + 1] ?? 0) + 1;
      this.#bytes[place] = (this.#bytes[place] ?? 0) + leaves.sizeOf(leaf);
    }
    this.order = this.#sorted();
  }

  #placeOf(leaf: number): number {
    const { leaves, support, roots } = this.#parts;
    if (leaf >= leaves.orphans) return this.#orphans;
    const first = support.first[leaf] ?? NOBODY;
    if (first === NOBODY) return this.#garbage + leafKinds.indexOf(leaves.kindOf(leaf));
    const count = support.countOf(leaf);
    if (count === 1) return first;
    const namespace = support.namespaceOf(leaf);
    const start = namespace === SEVERAL ? this.#several : roots.length + namespace * buckets.length;
    return start + buckets.findIndex(({ most }) => count <= most);
  }

  #sorted(): Uint32Array {
    for (let place = 0; place <= this.#orphans; place++)
      this.#starts[place + 1] = (this.#starts[place + 1] ?? 0) + (this.#starts[place] ?? 0);
    const filled = this.#starts.slice();
    const order = new Uint32Array(this.#places.length);
    for (const [leaf, place] of this.#places.entries()) {
      const at = filled[place] ?? 0;
      order[at] = leaf;
      filled[place] = at + 1;
    }
    return order;
  }

  host(): Branch {
    const children = [
      ...this.#namespaces(),
      this.#group('shared by namespaces', this.#shared(this.#several)),
      this.#group(
        'garbage',
        leafKinds.map((kind, n) => this.#place(this.#garbage + n, 'garbage', kind)).filter(isNotEmpty),
        'garbage',
      ),
      this.#place(this.#orphans, 'orphans', 'orphans'),
      ...this.#files(),
    ];
    return this.#group(this.#parts.name, children.filter(isNotEmpty), 'host');
  }

  #namespaces(): Branch[] {
    const { roots, namespaces } = this.#parts;
    const below = namespaces.map(() => new Map<string, Branch[]>());
    const numbers = new Map(namespaces.map((name, n) => [name, n]));
    for (const [n, { kind, namespace, name }] of roots.entries()) {
      const groups = below[numbers.get(namespace) ?? 0];
      const group = kind === 'image' ? '' : (groupOf[kind] ?? 'others');
      const branch = { ...this.#place(n, 'root', name), root: n };
      const others = groups?.get(group);
      if (others === undefined) groups?.set(group, [branch]);
      else others.push(branch);
    }
    return namespaces.map((name, n) => {
      const groups = [...(below[n] ?? [])].filter(([group]) => group !== '');
      const children = [
        ...(below[n]?.get('') ?? []),
        ...this.#shared(roots.length + n * buckets.length),
        ...groups.map(([group, branches]) => this.#group(group, branches)),
      ];
      return this.#group(name, children, 'namespace');
    });
  }

  #shared(start: number): Branch[] {
    return buckets.map(({ name }, n) => this.#place(start + n, 'group', name)).filter(isNotEmpty);
  }

  #files(): Branch[] {
    const { disk, leaves, support } = this.#parts;
    if (disk === undefined) return [];
    const { unfinished, trash, damaged, store } = disk.lines;
    // Ingests that a root keeps are in its branch.
    let ingests = 0;
    for (let leaf = 0; leaf < leaves.orphans; leaf++) {
      if (leaves.kindOf(leaf) === 'ingest' && support.first[leaf] !== NOBODY) ingests += leaves.sizeOf(leaf);
    }
    const files = { unfinished: unfinished - ingests, trash, damaged, 'own files': store };
    return Object.entries(files).map(([name, bytes]) => ({
      ...{ kind: 'files' as const, name, bytes, children: [] },
      ...{ first: 0, end: 0 },
    }));
  }

  #group(name: string, children: readonly Branch[], kind: BranchKind = 'group'): Branch {
    const bytes = children.reduce((sum, branch) => sum + branch.bytes, 0);
    return { kind, name, bytes, children, first: 0, end: 0 };
  }

  #place(place: number, kind: BranchKind, name: string): Branch {
    const [first = 0, end = 0] = this.#starts.subarray(place, place + 2);
    return { kind, name, bytes: this.#bytes[place] ?? 0, children: [], first, end };
  }
}

const isNotEmpty = ({ children, first, end, bytes }: Branch): boolean =>
  children.length > 0 || end > first || bytes > 0;
