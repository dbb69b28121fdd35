/**
 * A picture for the Memory panel of Chrome's developer tools, as a heap snapshot: what is kept is the graph of references itself, so
 * that the panel finds by its own reckoning what each object retains, and what retains it. Called by draw.ts.
 *
 * Nodes are the host, states of the graph that are reached, and leaves. A root is a single node, whatever refers to it: it
 * keeps itself. Objects are grouped by their kind, and named by the references to them. A self size has 32 bits there, so a larger leaf has parts.
 */
import { describeKey } from '../../gc/report/objects.js';
import { idOfState, NO_WAY, plainState } from '../../gc/report/reach.js';
import { kindName } from '../../gc/types.js';
import type { Picture } from '../picture.js';
import { NOBODY } from '../support.js';
import type { Branch } from '../tree.js';

const PART_BYTES = 2 ** 31;
/** Node and edge types by their place in the lists below. */
const Node = { object: 3, native: 8, synthetic: 9 } as const;
const Edge = { element: 1, property: 2 } as const;
const NODE_FIELDS = 7;

const meta = {
  node_fields: ['type', 'name', 'id', 'self_size', 'edge_count', 'trace_node_id', 'detachedness'],
  node_types: [
    [
      ...[
        'hidden',
        'array',
        'string',
        'object',
        'code',
        'closure',
        'regexp',
        'number',
        'native',
        'synthetic',
      ],
      ...['concatenated string', 'sliced string', 'symbol', 'bigint', 'object shape'],
    ],
    ...['string', 'number', 'number', 'number', 'number', 'number'],
  ],
  edge_fields: ['type', 'name_or_index', 'to_node'],
  edge_types: [
    ['context', 'element', 'property', 'internal', 'hidden', 'shortcut', 'weak'],
    'string_or_number',
    'node',
  ],
  trace_function_info_fields: [],
  trace_node_fields: [],
  sample_fields: [],
  location_fields: [],
};

export function* heapsnapshot(picture: Picture): Generator<string> {
  const graph = new Graph(picture);
  const counts = { node_count: graph.size, edge_count: 0, trace_function_count: 0, extra_native_bytes: 0 };
  const edges = new Uint32Array(graph.size);
  for (let node = 0; node < graph.size; node++) {
    graph.forEachEdge(node, () => {
      edges[node] = (edges[node] ?? 0) + 1;
    });
    counts.edge_count += edges[node] ?? 0;
  }
  yield `{"snapshot":${JSON.stringify({ meta, ...counts })},\n"nodes":[`;
  for (let node = 0; node < graph.size; node++)
    yield `${node === 0 ? '' : ',\n'}${graph.nodeText(node, edges[node] ?? 0)}`;
  yield '],\n"edges":[';
  let separator = '';
  for (let node = 0; node < graph.size; node++) {
    let text = '';
    graph.forEachEdge(node, (to, index) => {
      text += `${separator}${graph.edgeText(to, index)}`;
      separator = ',\n';
    });
    if (text !== '') yield text;
  }
  yield '],\n"trace_function_infos":[],"trace_tree":[],"samples":[],"locations":[],\n"strings":[';
  yield graph.kinds.map((kind) => JSON.stringify(kind)).join(',\n');
  for (let node = 0; node < graph.size; node++) yield `,\n${JSON.stringify(graph.nameOf(node))}`;
  yield ']}\n';
}

/**
 * Nodes by their numbers: the host, groups and files, states that are reached, leaves, further parts of these. A leaf that a single
 * state names is no node: its bytes are those of the state.
 */
class Graph {
  readonly size: number;
  /** Strings before the names of the nodes: what nodes are of. */
  readonly kinds: readonly string[] = kinds;
  readonly #picture: Picture;
  readonly #groups: readonly Branch[];
  readonly #rootNames: ReadonlyMap<number, string>;
  /** State by node, counted from the first one of a state; node by state. */
  readonly #states: Int32Array;
  readonly #ofState: Int32Array;
  /** Leaf by node, counted as states are, of those that are no nodes; of those that are, in their order. */
  readonly #within: Int32Array;
  readonly #apart: number[] = [];
  /** Node by leaf. */
  readonly #ofLeaf: Int32Array;
  /** Where the other parts of a leaf begin, by its node; and the leaf of each part. */
  readonly #partsOf = new Map<number, number>();
  readonly #leafOfPart: number[] = [];
  readonly #firstState: number;
  readonly #firstLeaf: number;
  readonly #firstPart: number;

  constructor(picture: Picture) {
    this.#picture = picture;
    const { tree, view, support, leaves, roots } = picture;
    this.#groups = tree.host.children.filter(({ kind }) => ['garbage', 'orphans', 'files'].includes(kind));
    this.#rootNames = new Map(
      roots.map(({ id, kind, namespace, name }) => [id, `${kind} ${name} in ${namespace}`]),
    );
    this.#firstState = 1 + this.#groups.length;
    this.#ofState = new Int32Array(view.limit * 2).fill(NOBODY);
    const states: number[] = [];
    for (const [state, before] of support.before.entries()) {
      if (before === NO_WAY) continue;
      this.#ofState[state] = this.#firstState + states.length;
      states.push(state);
    }
    this.#states = Int32Array.from(states);
    this.#firstLeaf = this.#firstState + states.length;
    this.#within = new Int32Array(states.length).fill(NOBODY);
    this.#ofLeaf = new Int32Array(leaves.count).fill(NOBODY);
    this.#placeLeaves();
    this.#firstPart = this.#firstLeaf + this.#apart.length;
    for (let leaf = 0; leaf < leaves.count; leaf++) {
      const parts = Math.ceil(leaves.sizeOf(leaf) / PART_BYTES) - 1;
      if (parts <= 0) continue;
      this.#partsOf.set(this.#ofLeaf[leaf] ?? 0, this.#firstPart + this.#leafOfPart.length);
      for (let part = 0; part < parts; part++) this.#leafOfPart.push(leaf);
    }
    this.size = this.#firstPart + this.#leafOfPart.length;
  }

  #placeLeaves(): void {
    const { leaves } = this.#picture;
    const namers = new Uint8Array(leaves.count);
    for (const state of this.#states)
      leaves.forEachOf(idOfState(state), (leaf) => {
        namers[leaf] = Math.min(2, (namers[leaf] ?? 0) + 1);
      });
    for (const [n, state] of this.#states.entries())
      leaves.forEachOf(idOfState(state), (leaf) => {
        if (namers[leaf] !== 1 || this.#within[n] !== NOBODY) return;
        this.#within[n] = leaf;
        this.#ofLeaf[leaf] = this.#firstState + n;
      });
    for (const [leaf, node] of this.#ofLeaf.entries())
      if (node === NOBODY) this.#ofLeaf[leaf] = this.#firstLeaf + this.#apart.push(leaf) - 1;
  }

  /** Calls `visit` for what a node refers to, in the same order every time. */
  forEachEdge(node: number, visit: (to: number, index: number) => void): void {
    let index = 0;
    const add = (to: number): void => visit(to, index++);
    if (node === 0) this.#ofHost(add);
    else if (node < this.#firstState) this.#ofGroup(this.#groups[node - 1], add);
    else if (node < this.#firstLeaf) this.#ofNode(node, add);
    const leaf = this.#leafAt(node);
    const first = this.#partsOf.get(node);
    if (first === undefined || node >= this.#firstPart) return;
    for (let part = first; this.#leafOfPart[part - this.#firstPart] === leaf; part++) add(part);
  }

  #ofHost(add: (to: number) => void): void {
    for (let group = 1; group <= this.#groups.length; group++) add(group);
    for (const { id } of this.#picture.roots) add(this.#ofState[plainState(id)] ?? 0);
  }

  #ofGroup(branch: Branch | undefined, add: (to: number) => void): void {
    if (branch === undefined) return;
    for (const leaf of this.#picture.tree.order.subarray(branch.first, branch.end))
      add(this.#ofLeaf[leaf] ?? 0);
    for (const child of branch.children) this.#ofGroup(child, add);
  }

  #ofNode(node: number, add: (to: number) => void): void {
    const { view, leaves, support } = this.#picture;
    const state = this.#stateAt(node);
    leaves.forEachOf(idOfState(state), (leaf) => {
      if (this.#ofLeaf[leaf] !== node) add(this.#ofLeaf[leaf] ?? 0);
    });
    view.forEachStep(state, (to) => {
      const id = idOfState(to);
      const other = this.#ofState[support.isRoot(id) ? plainState(id) : to] ?? NOBODY;
      if (other !== NOBODY) add(other);
    });
  }

  nodeText(node: number, edges: number): string {
    const type = node === 0 ? Node.synthetic : node < this.#firstLeaf ? Node.object : Node.native;
    return `${type},${kindNumbers.get(this.#kindOf(node)) ?? 0},${node * 2 + 1},${this.#selfSize(node)},${edges},0,0`;
  }

  edgeText(to: number, index: number): string {
    return to < this.#firstPart
      ? `${Edge.property},${kinds.length + to},${to * NODE_FIELDS}`
      : `${Edge.element},${index},${to * NODE_FIELDS}`;
  }

  #kindOf(node: number): string {
    if (node === 0) return '';
    if (node < this.#firstState) return 'files';
    if (node >= this.#firstLeaf) return `bytes of ${this.#picture.leaves.kindOf(this.#leafAt(node))}`;
    const kind = kindName(this.#picture.view.typeOf(idOfState(this.#stateAt(node))));
    return kindNumbers.has(kind) ? kind : 'record';
  }

  #selfSize(node: number): number {
    if (node < this.#firstState) {
      const group = this.#groups[node - 1];
      return group?.kind === 'files' ? group.bytes : 0;
    }
    if (node >= this.#firstPart) return PART_BYTES;
    const leaf = this.#leafAt(node);
    const size = leaf === NOBODY ? 0 : this.#picture.leaves.sizeOf(leaf);
    return this.#partsOf.has(node) ? size - PART_BYTES * (Math.ceil(size / PART_BYTES) - 1) : size;
  }

  #stateAt(node: number): number {
    return this.#states[node - this.#firstState] ?? 0;
  }

  /** NOBODY: the node has no bytes of a leaf. */
  #leafAt(node: number): number {
    if (node < this.#firstState) return NOBODY;
    if (node < this.#firstLeaf) return this.#within[node - this.#firstState] ?? NOBODY;
    return (
      (node < this.#firstPart
        ? this.#apart[node - this.#firstLeaf]
        : this.#leafOfPart[node - this.#firstPart]) ?? NOBODY
    );
  }

  nameOf(node: number): string {
    if (node === 0) return this.#picture.tree.host.name;
    if (node < this.#firstState) return this.#groups[node - 1]?.name ?? '';
    const leaf = this.#leafAt(node);
    if (node >= this.#firstLeaf) return this.#picture.leaves.nameOf(leaf);
    const id = idOfState(this.#stateAt(node));
    const root = this.#rootNames.get(id);
    if (root !== undefined) return root;
    if (leaf !== NOBODY) return `${this.#kindOf(node)} ${this.#picture.leaves.nameOf(leaf)}`;
    const record = this.#picture.host.engine.keyOf(id);
    // What is referred to and not there, or gone meanwhile.
    if (record === undefined) return 'record (gone)';
    const { kind, namespace, key } = describeKey(record);
    return `${kind} ${key} in ${namespace}`;
  }
}

const kinds = [
  ...['', 'files', 'image', 'container', 'lease', 'ingest', 'sandbox', 'mount', 'content', 'snapshot'],
  ...['record', 'bytes of content', 'bytes of snapshot', 'bytes of ingest'],
];

const kindNumbers = new Map(kinds.map((kind, n) => [kind, n]));
