/**
 * The schema revision of our own store: what the records mean, apart from how an engine lays them out. Called once
 * at opening, by `DB.init`; one synchronous transaction, no mutation callbacks.
 */
import { failedPrecondition, wrap } from '../../errors.js';
import type { Engine, Transaction } from '../contract.js';
import { components, metaKey, Relation, snapshotKey } from './keys.js';
import { SCHEMA, SCHEMA_REVISION } from './legacy.js';

const VERSION = metaKey('version');

/** What brings our records to a revision. Ours never had the forms that 2 and 4 of the old tree move. */
const migrations: readonly { revision: number; run: (tx: Transaction) => void }[] = [
  { revision: 1, run: addChildLinks },
  { revision: 2, run: () => {} },
  { revision: 3, run: () => {} },
  { revision: 4, run: () => {} },
];

/**
 * Stores the revision in a new store, migrates an older one, leaves a newer one alone. Writes nothing when there is
 * nothing to do; a failing migration leaves the store as it was and names its revision.
 */
export async function initSchema(engine: Engine): Promise<void> {
  const stored = revisionIn(engine);
  if (stored !== undefined && stored >= SCHEMA_REVISION) return;
  if (engine.isReadOnly) {
    if (stored === undefined && isEmpty(engine)) return;
    throw failedPrecondition(
      `the records have revision ${stored ?? 0}, which is brought to ${SCHEMA_REVISION} at opening`,
      {
        remedy: 'open the store for writing once',
      },
    );
  }
  await engine.update((tx) => {
    // Only records make a store an old one: a new file may hold nothing but the engine's own data.
    const isNew = revisionIn(tx) === undefined && isEmpty(tx);
    const from = isNew ? SCHEMA_REVISION : (revisionIn(tx) ?? 0);
    for (const { revision, run } of migrations) {
      if (revision <= from) continue;
      try {
        run(tx);
      } catch (error) {
        throw wrap(`failed to migrate to ${SCHEMA}.${revision}`, error);
      }
    }
    if (isNew || from < SCHEMA_REVISION) tx.put(VERSION, { version: SCHEMA_REVISION });
  });
}

/** The stored revision; undefined when missing or unreadable. */
function revisionIn(reader: Pick<Transaction, 'get'>): number | undefined {
  const record = reader.get(VERSION);
  const version = typeof record === 'object' ? record.version : undefined;
  return typeof version === 'number' ? version : undefined;
}

function isEmpty(tx: Pick<Transaction, 'scan'>): boolean {
  for (const _ of tx.scan('', { limit: 1 })) return false;
  return true;
}

/** Enters every snapshot with a parent in the parent's children; a missing parent is not an error. */
function addChildLinks(tx: Transaction): void {
  for (const [key, record] of tx.scan('snapshots')) {
    const parentName = typeof record === 'object' ? record.parent : undefined;
    if (typeof parentName !== 'string' || parentName === '') continue;
    const [, namespace, snapshotter] = components(key);
    if (namespace === undefined || snapshotter === undefined) continue;
    const parent = snapshotKey(namespace, snapshotter, parentName);
    if (tx.has(parent)) tx.link(parent, Relation.children, key);
  }
}
