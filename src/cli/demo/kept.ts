/** Groups every record by the root from which a shortest path keeps it. */
import type { DB } from '../../db.js';
import type { Key } from '../../engine/contract.js';
import { components } from '../../engine/schema/keys.js';
import { now } from '../../model/time.js';

export interface KeptRow {
  /** Like `image demo/web:1.0` or `lease keep`; `nothing` for garbage. */
  by: string;
  blobs: number;
  snapshots: number;
  /** Sum of the blobs' sizes, bytes. */
  bytes: number;
}

const kinds: Readonly<Record<string, string>> = {
  images: 'image',
  containers: 'container',
  leases: 'lease',
  sandboxes: 'sandbox',
  blobs: 'root label on blob',
  snapshots: 'root label on snapshot',
  ingests: 'open ingest',
};

/** Rows of every namespace, by size; one walk over blobs and snapshots. */
export function keptBy(db: DB): KeptRow[] {
  const at = now();
  const rows = new Map<string, KeptRow>();
  const row = (by: string): KeptRow => {
    let found = rows.get(by);
    if (found === undefined) {
      found = { by, blobs: 0, snapshots: 0, bytes: 0 };
      rows.set(by, found);
    }
    return found;
  };
  for (const collection of ['blobs', 'snapshots']) {
    for (const [key, value] of db.engine.scan(collection)) {
      const r = row(rootOf(db, key, at));
      if (collection === 'snapshots') r.snapshots++;
      else {
        r.blobs++;
        if (typeof value !== 'string' && typeof value.size === 'number') r.bytes += value.size;
      }
    }
  }
  return [...rows.values()].sort((a, b) => b.bytes - a.bytes || b.snapshots - a.snapshots);
}

function rootOf(db: DB, key: Key, at: bigint): string {
  const id = db.engine.idOf(key);
  const [first] = (id === undefined ? undefined : db.engine.graph.path(id, at)) ?? [];
  const root = first === undefined ? undefined : db.engine.keyOf(first);
  if (root === undefined) return 'nothing';
  const [collection = '', , ...name] = components(root);
  return `${kinds[collection] ?? collection} ${name.join('/')}`;
}
