/** The rows of a policy's plan: what goes, and every root that stays with the bytes it keeps. Called by plan.ts; reads only. */
import { NodeFlag, type StoredNode } from '../engine/contract.js';
import { NO_ITEM } from '../engine/graph.js';
import { decodeFields } from '../engine/schema/codec.js';
import type { CollectHost } from '../gc/host.js';
import { IDENTITY, identityOf, sizeOf } from '../gc/report/dry-run.js';
import type { Items } from '../gc/report/items.js';
import { describeKey, describeNode, type ObjectDescription } from '../gc/report/objects.js';
import type { KeptRoot } from '../gc/report/plan.js';
import { type GraphView, idOfState, plainState } from '../gc/report/reach.js';
import type { Candidate } from '../gc/stats.js';
import { ResourceIngest } from '../gc/types.js';
import { formatTimestamp } from '../model/time.js';
import type { Pace } from '../stores/listing.js';
import type { Choice } from './choice.js';
import { type Holders, NO_RECORD } from './holders.js';
import type { Root } from './roots.js';

/** The store at the moment of a plan. */
export interface Picture {
  readonly host: CollectHost;
  readonly view: GraphView;
  readonly items: Items;
  readonly pace: Pace;
}

const NODES_AT_ONCE = 4096;
/** Read or written between two looks at the clock. */
const RECORDS_AT_ONCE = 32;

/** What is garbage, and what becomes it; first what goes first. `retired`: 1 for each of those roots. */
export async function objectsOf(
  picture: Picture,
  holders: Holders,
  retired: Uint8Array,
): Promise<Candidate[]> {
  const { engine } = picture.host;
  const objects: Candidate[] = [];
  const sizes = new Sizes(picture, holders);
  const heads = picture.items.parents.map((parent) => describeNode({ parent, leaf: '' }));
  let looked = 0;
  for (const id of await goingOf(picture, holders, retired)) {
    if (++looked % RECORDS_AT_ONCE === 0 && picture.pace.isOver) await picture.pace.pass();
    const object = blobAt(picture, heads, id) ?? engine.readNode(id, described);
    if (object === undefined) continue;
    object.size = sizes.known(id) ?? (await sizes.asked(id));
    objects.push(object);
  }
  return objects;
}

/** Its record was read for its size. */
function blobAt({ items }: Picture, heads: readonly ObjectDescription[], id: number): Candidate | undefined {
  const parent = items.parentOf(id);
  const head = parent === 0 ? undefined : heads[parent];
  if (head === undefined) return undefined;
  const key = items.nameOf(items.ofNode[id] ?? NO_ITEM);
  return { kind: head.kind, namespace: head.namespace, key, size: 0, identity: String(items.createdAt(id)) };
}

function described(node: StoredNode): Candidate {
  const { kind, namespace, key } = describeNode(node);
  return { kind, namespace, key, size: 0, identity: identityOf(decodeFields(node, IDENTITY)) };
}

async function goingOf({ view, pace }: Picture, holders: Holders, retired: Uint8Array): Promise<Uint32Array> {
  // How many there are of each rank, from -1 on: garbage first; then where those of each begin.
  const starts = new Uint32Array(holders.retiring + 2);
  const object = NodeFlag.present | NodeFlag.collectible;
  const rankOf = (id: number): number | undefined => {
    if (((view.flags[id] ?? 0) & object) !== object) return undefined;
    const rank = holders.rankOf(id);
    return rank >= holders.retiring || retired[id] === 1 ? undefined : rank + 1;
  };
  for (let id = 0; id < view.limit; id++) {
    if (id % NODES_AT_ONCE === 0 && pace.isOver) await pace.pass();
    const rank = rankOf(id);
    if (rank !== undefined) starts[rank + 1] = (starts[rank + 1] ?? 0) + 1;
  }
  for (let rank = 1; rank < starts.length; rank++)
    starts[rank] = (starts[rank] ?? 0) + (starts[rank - 1] ?? 0);
  const going = new Uint32Array(starts.at(-1) ?? 0);
  for (let id = 0; id < view.limit; id++) {
    if (id % NODES_AT_ONCE === 0 && pace.isOver) await pace.pass();
    const rank = rankOf(id);
    if (rank === undefined) continue;
    const place = starts[rank] ?? 0;
    going[place] = id;
    starts[rank] = place + 1;
  }
  return going;
}

/** Bytes of objects; of several that are one item, the first has them, and none when a record stays that names it. */
class Sizes {
  readonly #picture: Picture;
  readonly #holders: Holders;
  readonly #sizes: Float64Array;
  readonly #counted: Uint8Array;

  constructor(picture: Picture, holders: Holders) {
    this.#picture = picture;
    this.#holders = holders;
    this.#sizes = picture.items.sizes;
    this.#counted = new Uint8Array(this.#sizes.length);
  }

  /** Undefined: its backend is to be asked. */
  known(id: number): number | undefined {
    const { view, items } = this.#picture;
    // The item of an ingest is the blob that it expects; its own bytes are beside.
    if (view.typeOf(id) === ResourceIngest) return undefined;
    const item = items.ofNode[id] ?? NO_ITEM;
    if (item === NO_ITEM || this.#counted[item] === 1) return 0;
    this.#counted[item] = 1;
    return this.#holders.goes(item) ? (this.#sizes[item] ?? 0) : 0;
  }

  asked(id: number): Promise<number> {
    return sizeOf(this.#picture.host, id);
  }
}

/** Every root that stays, with why, and the bytes that stay because of it. */
export async function keptOf(
  picture: Picture,
  { kept }: Choice,
  roots: readonly Root[],
  { holders, ids, staying }: { holders: Holders; ids: readonly number[]; staying: readonly number[] },
): Promise<KeptRoot[]> {
  const { host, pace } = picture;
  const { bytes, pins } = await stayingBytes(picture, holders, ids, staying.length);
  // From 1 on.
  const placeOf = new Uint32Array(picture.view.limit);
  for (const { id, place } of roots) placeOf[id] = place + 1;
  const rows: KeptRoot[] = [];
  for (const [n, id] of staying.entries()) {
    if (n % RECORDS_AT_ONCE === 0 && pace.isOver) await pace.pass();
    const shares = { bytes: bytes[n] ?? 0, pins: pins[n] ?? 0 };
    const root = roots[(placeOf[id] ?? 0) - 1];
    if (root === undefined) {
      const record = host.engine.keyOf(id);
      if (record !== undefined) rows.push({ ...describeKey(record), reason: 'held', ...shares });
      continue;
    }
    const { kind, namespace, key, lastUsed } = root;
    const why = kept[root.place];
    rows.push({
      kind,
      namespace,
      key,
      lastUsed: formatTimestamp(lastUsed),
      ...(why && { rule: why.rule.name }),
      reason: why?.reason ?? 'no rule',
      ...(why?.by !== undefined && { by: why.by }),
      ...shares,
    });
  }
  return rows;
}

/** By the places of the roots that stay: bytes of what each of them holds, and of what retired roots have of that. */
async function stayingBytes(
  picture: Picture,
  holders: Holders,
  retired: readonly number[],
  staying: number,
): Promise<{ bytes: number[]; pins: number[] }> {
  const { sizes } = picture.items;
  const bytes = new Array<number>(staying).fill(0);
  const pins = new Array<number>(staying).fill(0);
  const reached = await itemsOf(picture, retired);
  for (let item = 0; item < sizes.length; item++) {
    if (item % NODES_AT_ONCE === 0 && picture.pace.isOver) await picture.pace.pass();
    const place = (holders.ranksOfItems[item] ?? NO_RECORD) - holders.retiring;
    if (place < 0) continue;
    const size = sizes[item] ?? 0;
    bytes[place] = (bytes[place] ?? 0) + size;
    if (reached[item] === 1) pins[place] = (pins[place] ?? 0) + size;
  }
  return { bytes, pins };
}

/** 1 for each item that is reached from these roots. */
async function itemsOf({ view, items, pace }: Picture, roots: readonly number[]): Promise<Uint8Array> {
  const reached = new Uint8Array(items.sizes.length);
  const seen = new Uint8Array(view.limit * 2);
  const open: number[] = [];
  const enter = (state: number): void => {
    if (seen[state] === 1) return;
    seen[state] = 1;
    open.push(state);
    const item = items.ofNode[idOfState(state)] ?? NO_ITEM;
    if (item !== NO_ITEM) reached[item] = 1;
  };
  for (const root of roots) {
    enter(plainState(root));
    for (let state = open.pop(), n = 0; state !== undefined; state = open.pop(), n++) {
      // One root may keep most of the store.
      if (n % NODES_AT_ONCE === 0 && pace.isOver) await pace.pass();
      view.forEachStep(state, enter);
    }
  }
  return reached;
}
