/** What the contract suite runs with: an indexer of its own, keys, and ways to look at an engine. */
import assert from 'node:assert/strict';
import { type ErrorKind, kindOf } from '../../errors.js';
import {
  type Edge,
  EdgeKind,
  type Engine,
  type Indexer,
  type Key,
  NodeFlag,
  type Transaction,
  type Value,
} from '../contract.js';
import { collectionOf } from '../schema/keys.js';

/** An engine under test. `reopen` closes it and opens the same store again; absent where nothing outlives a close. */
export interface EngineUnderTest {
  /** An open engine without records. */
  engine: Engine;
  /** Opens what a closed engine left; left out where nothing stays. */
  reopen?: () => Promise<Engine>;
  /** Removes all that the engine has made. */
  dispose: () => Promise<void>;
}
/** Opens an empty engine with the given indexer. */
export type OpenEngine = (indexer: Indexer) => Promise<EngineUnderTest>;

const plainCollections = new Set(['meta', 'namespaces', 'raw', 'backendnames']);
const kinds: Readonly<Record<string, EdgeKind>> = EdgeKind;

/**
 * A record's `refs` are its edges: `<kind>…` or `back…` → key. `root` and `expireat` make a root. Collections of the
 * store that are not nodes are none here.
 */
export const suiteIndexer: Indexer = {
  node(key, value) {
    if (plainCollections.has(collectionOf(key))) return undefined;
    const fields = typeof value === 'string' ? {} : value;
    const edges: Edge[] = [];
    for (const [name, to] of Object.entries(typeof fields.refs === 'object' ? fields.refs : {})) {
      const word = name.replace(/[^a-z].*$/, '');
      if (word === 'back') edges.push({ to: String(to), kind: EdgeKind.label, back: true });
      else edges.push({ to: String(to), kind: kinds[word] ?? EdgeKind.label });
    }
    const flags = typeFlags(key) | NodeFlag.collectible | (fields.root === true ? NodeFlag.root : 0);
    return { flags, edges, ...(typeof fields.expireat === 'bigint' && { expireAt: fields.expireat }) };
  },
  absent: typeFlags,
  link(_from, relation) {
    if (relation === 'holds') return EdgeKind.label;
    return relation === 'holds.flat' ? EdgeKind.flat : undefined;
  },
};

function typeFlags(key: Key): number {
  return (collectionOf(key).length % 8) << 8;
}

export const keysBelow = (reader: Pick<Engine, 'scan'>, prefix: Key): Key[] =>
  [...reader.scan(prefix)].map(([key]) => key);

/** Puts records and resolves when they are durable. */
export const putAll = (engine: Engine, records: Iterable<readonly [Key, Value]>): Promise<void> =>
  engine.update((tx) => {
    for (const [key, value] of records) tx.put(key, value);
  });

export const assertKind = (kind: ErrorKind) => (error: unknown) => {
  assert.equal(kindOf(error), kind, String(error));
  return true;
};

/** The graph says the same as the records, and every node leads to its key and back. */
export function assertGraphSound(engine: Engine): void {
  assert.deepEqual(engine.verifyGraph(), []);
  const { limit } = engine.graph.stats();
  for (let id = 0; id < limit; id++) {
    const key = engine.keyOf(id);
    if (key !== undefined) assert.equal(engine.idOf(key), id, key);
  }
}

/** A commit of another caller, made while a transaction runs. */
export const meanwhile = (engine: Engine, change: (tx: Transaction) => void): Promise<void> =>
  engine.update((tx) => change(tx));

/** A promise to be resolved by hand. */
export function gate(): { opened: Promise<void>; open: () => void } {
  let open!: () => void;
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open };
}
