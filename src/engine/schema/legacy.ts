/**
 * Migrations of containerd's logical tree, revisions 1 to 4: pure functions over nested maps, for readers of containerd's own
 * metadata file, which may be of any of them. Our store has the revision numbers in common (migrations.ts).
 * A tree is a map from a key to a scalar's bytes or to a further map; `v1` at its top holds the namespaces.
 */
import { unknownError, wrap } from '../../errors.js';
import { compareUtf8 } from '../../model/utf8.js';
import { decodeVarint, encodeVarint } from '../../model/wire.js';

export type Tree = Map<string, Tree | Uint8Array>;

export const SCHEMA = 'v1';
export const SCHEMA_REVISION = 4;
const VERSION = 'version';

export interface MigrationResult {
  /** A new tree; the given one is never changed. */
  tree: Tree;
  /** Revisions whose migrations ran, ascending. */
  ran: number[];
}

interface Migration {
  revision: number;
  run: (tree: Tree) => void;
}

export const migrations: readonly Migration[] = [
  { revision: 1, run: addChildLinks },
  { revision: 2, run: moveIngests },
  // Marks a change of the bolt library, nothing of the tree.
  { revision: 3, run: () => {} },
  { revision: 4, run: moveSandboxes },
];

/**
 * Brings a tree to the current revision. Without a `v1` level it becomes a new one; a revision above the current is
 * left alone. Fails as a whole, with the cause's kind.
 */
export function migrateTree(given: Tree): MigrationResult {
  const tree = copyTree(given);
  const schema = child(tree, SCHEMA);
  if (schema === undefined) {
    tree.set(SCHEMA, new Map([[VERSION, encodeVarint(SCHEMA_REVISION)]]));
    return { tree, ran: [] };
  }
  const ran: number[] = [];
  const revision = revisionOf(schema);
  for (const migration of migrations) {
    if (migration.revision <= revision) continue;
    try {
      migration.run(tree);
    } catch (error) {
      throw wrap(`failed to migrate to ${SCHEMA}.${migration.revision}`, error);
    }
    ran.push(migration.revision);
  }
  if (ran.length > 0) schema.set(VERSION, encodeVarint(SCHEMA_REVISION));
  return { tree, ran };
}

/** The stored revision; 0 when missing or unreadable. */
export function revisionOf(schema: Tree): number {
  const stored = schema.get(VERSION);
  if (!(stored instanceof Uint8Array)) return 0;
  try {
    return Number(decodeVarint(stored));
  } catch {
    return 0;
  }
}

export function copyTree(tree: Tree): Tree {
  const copy: Tree = new Map();
  for (const [name, value] of tree) copy.set(name, value instanceof Map ? copyTree(value) : value.slice());
  return copy;
}

/** 1: every snapshot with a parent is entered in the parent's children; a missing parent is not an error. */
function addChildLinks(tree: Tree): void {
  for (const [, namespace] of namespacesOf(tree)) {
    for (const [, snapshots] of subtrees(child(namespace, 'snapshots'))) {
      for (const [name, snapshot] of subtrees(snapshots)) {
        const parentName = textOf(snapshot.get('parent'));
        const parent = parentName === '' ? undefined : child(snapshots, parentName);
        if (parent !== undefined) ensure(parent, 'children').set(name, new Uint8Array());
      }
    }
  }
}

/** 2: the flat map `content/ingest` (ref → backend ref) becomes records under `content/ingests`. */
function moveIngests(tree: Tree): void {
  for (const [, namespace] of namespacesOf(tree)) {
    const content = child(namespace, 'content');
    const flat = content === undefined ? undefined : child(content, 'ingest');
    if (content === undefined || flat === undefined) continue;
    const ingests = ensure(content, 'ingests');
    for (const [ref, backendRef] of flat) {
      if (backendRef instanceof Map) throw unknownError(`ingest "${ref}" is not text`, { object: ref });
      ensure(ingests, ref).set('ref', backendRef);
    }
    content.delete('ingest');
  }
}

/** 4: sandboxes outside `v1` move to `v1/<namespace>/sandboxes`; every other top-level record goes. */
function moveSandboxes(tree: Tree): void {
  const schema = ensure(tree, SCHEMA);
  for (const [name, value] of [...tree].sort(([a], [b]) => compareUtf8(a, b))) {
    if (name === SCHEMA) continue;
    const old = value instanceof Map ? child(value, 'sandboxes') : undefined;
    for (const [id, sandbox] of subtrees(old)) {
      const moved = ensure(ensure(ensure(schema, name), 'sandboxes'), id);
      for (const [field, content] of sandbox) moved.set(field, copyLevel(id, field, content));
    }
    tree.delete(name);
  }
}

/** A scalar, or a map of scalars. */
function copyLevel(id: string, field: string, content: Tree | Uint8Array): Tree | Uint8Array {
  if (!(content instanceof Map)) return content;
  for (const [name, value] of content) {
    if (value instanceof Map) {
      throw unknownError(`sandbox "${id}" has an unexpected level ${field}/${name}`, { object: id });
    }
  }
  return content;
}

function namespacesOf(tree: Tree): [string, Tree][] {
  return subtrees(child(tree, SCHEMA));
}

/** Children that are levels, in key order. */
function subtrees(tree: Tree | undefined): [string, Tree][] {
  const found: [string, Tree][] = [];
  for (const [name, value] of tree ?? []) if (value instanceof Map) found.push([name, value]);
  return found.sort(([a], [b]) => compareUtf8(a, b));
}

function child(tree: Tree, name: string): Tree | undefined {
  const value = tree.get(name);
  return value instanceof Map ? value : undefined;
}

function ensure(tree: Tree, name: string): Tree {
  const known = tree.get(name);
  if (known instanceof Map) return known;
  if (known !== undefined) throw unknownError(`"${name}" is a value, not a level`, { object: name });
  const made: Tree = new Map();
  tree.set(name, made);
  return made;
}

const textOf = (value: Tree | Uint8Array | undefined): string =>
  value instanceof Uint8Array ? Buffer.from(value).toString('utf8') : '';
