/**
 * Brings a store of an earlier layout to the present one. Called by engine.ts at opening, by the only writer.
 *
 *   1 → 2   keys that end in a digest move to the index of digests, children to their ids; the journal had another form,
 *           so the graph is rebuilt from the records
 *   2 → 3   keys of more than a kibibyte are found by their order, and by their hash no longer (table.ts)
 *
 * Durability: one transaction, so that a crash leaves the old layout or the new one.
 */
import { splitLink } from '../core/storage.js';
import { Relation } from '../schema/keys.js';
import { readState, stateBytes } from './checkpoint.js';
import { childCheck, childRow } from './codec/child-links.js';
import { decodeLink, digestCut, encodeKey } from './codec/key-codec.js';
import type { DataFile } from './disk/files.js';
import { type Databases, LAYOUT, layoutOf, setLayout } from './tree/databases.js';
import { encodeJournal, journalKey } from './tree/journal.js';
import { find, INLINE_ID, idBytes, idsIn, isInline, SHARING_MAX } from './tree/key-index.js';
import type { Table } from './tree/table.js';

const ROWS_AT_ONCE = 512;
/** What moving may add to the file. */
const CUSHION_PART = 2;

/** Whether there was something to do. */
export function upgrade(dbs: Databases, file: DataFile): boolean {
  const layout = layoutOf(dbs);
  if (layout === LAYOUT) return false;
  file.write(Math.ceil(file.usedBytes() / CUSHION_PART), () =>
    dbs.env.transactionSync(() => {
      for (const table of [dbs.keys, dbs.links, dbs.counters]) table.moveHashedKeys();
      if (layout < 2) {
        moveKeys(dbs);
        moveChildren(dbs);
        forgetGraph(dbs);
      }
      setLayout(dbs);
    }),
  );
  dbs.env.resetReadTxn();
  return true;
}

function moveKeys({ keys, digests }: Databases): void {
  for (const [key, value] of rowsOf(keys)) {
    const cut = digestCut(key);
    if (cut === 0) continue;
    const short = key.subarray(0, cut);
    const there = digests.get(short);
    const ids = there === undefined ? [] : idsIn(there, digests.lastSize);
    const hasRoom = ids.filter((id) => id !== INLINE_ID).length < SHARING_MAX;
    const moves = !isInline(value) && hasRoom;
    const id = moves ? value.readUInt32BE(0) : INLINE_ID;
    if (!ids.includes(id)) digests.put(short, idBytes([...ids, id]));
    if (moves) keys.remove(key);
  }
}

function moveChildren(dbs: Databases): void {
  for (const [row] of rowsOf(dbs.links)) {
    const { from, relation, to } = splitLink(decodeLink(row));
    if (relation !== Relation.children) continue;
    const fromId = find(dbs, from)?.id;
    const toId = find(dbs, to)?.id;
    if (fromId === undefined || toId === undefined) continue;
    void dbs.children.put(childRow(fromId, toId), childCheck(encodeKey(to)));
    dbs.links.remove(row);
  }
}

/** Keeps the revision, so that it goes on growing. */
function forgetGraph(dbs: Databases): void {
  const { checkpoint: _, ...state } = readState(dbs) ?? { clean: true };
  const last = [...dbs.journal.getKeys({ reverse: true, limit: 1 })][0];
  const journal = last === undefined ? 0 : Number(Buffer.from(last).readBigUInt64BE(0));
  const revision = Math.max(journal, _?.revision ?? 0);
  for (const key of [...dbs.journal.getKeys()]) void dbs.journal.remove(key);
  for (const key of [...dbs.checkpoints.getKeys()]) void dbs.checkpoints.remove(key);
  // Nothing comes before it, which means that the graph has to be rebuilt.
  if (revision > 0) void dbs.journal.put(journalKey(revision), encodeJournal(-1, 0, []));
  void dbs.meta.put('state', stateBytes(state));
}

/** Rows of a table that is changed meanwhile; each chunk is a copy. */
function* rowsOf(table: Table): Generator<[Buffer, Buffer]> {
  for (let lower: Buffer = Buffer.alloc(0), exclusive = false; ; exclusive = true) {
    const rows = table
      .range(lower, exclusive, undefined, ROWS_AT_ONCE)
      .map(([key, value]): [Buffer, Buffer] => [Buffer.from(key), Buffer.from(value)]);
    yield* rows;
    const last = rows[rows.length - 1];
    if (rows.length < ROWS_AT_ONCE || last === undefined) return;
    lower = last[0];
  }
}
