/**
 * The rooms of src/ and the doors between them: which room may import which. A new arrow fails here until it is put into the
 * table, and one that is not used any more until it is taken out. Rooms in the table come before those that they import, so the
 * arrows run one way; so do the imports of single files.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const src = fileURLToPath(new URL('../../../src/', import.meta.url));

/** What each room imports, and what it takes only types from; from the top down. */
const doors: Record<string, [imports: string, types: string]> = {
  cli: [
    'server synth any-host db pictures policy backup check gc images stores graph engine/schema backends system model errors',
    'history engine/etcd engine context',
  ],
  server: [
    'db pictures policy gc registry images stores engine/schema context backends system model errors',
    'engine/etcd',
  ],
  synth: ['stores engine/schema model errors', 'engine'],
  'any-host': [
    'db check gc images graph engine/memory engine/schema backends bolt system model errors',
    'engine',
  ],
  entry: [
    'db pictures backup check gc images stores graph engine/etcd engine/lmdb engine/memory engine engine/schema context backends model errors',
    'history policy',
  ],
  db: [
    'history pictures policy backup check gc stores graph engine/etcd engine/lmdb engine/memory engine engine/schema context backends system model errors',
    '',
  ],
  history: ['gc system errors', ''],
  pictures: ['policy gc stores engine model errors', 'context'],
  policy: ['gc stores engine engine/schema system model errors', ''],
  backup: ['engine/lmdb engine/schema backends system model errors', 'engine'],
  check: ['gc images stores engine/schema backends system model errors', 'engine'],
  gc: ['stores graph engine/core engine engine/schema context backends system model errors', ''],
  registry: ['images system model errors', 'stores'],
  images: ['stores context backends system model errors', ''],
  stores: ['engine/schema context backends system model errors', 'engine'],
  graph: ['engine system errors', ''],
  'engine/etcd': ['engine/lmdb engine/memory engine/core engine engine/schema model errors', ''],
  'engine/lmdb': ['engine/core engine engine/schema system model errors', ''],
  'engine/memory': ['engine/core engine engine/schema model errors', ''],
  'engine/suite': ['engine/core engine engine/schema model errors', ''],
  'engine/core': ['engine engine/schema model errors', ''],
  engine: ['engine/schema model errors', ''],
  'engine/schema': ['model errors', 'engine'],
  context: ['model errors', 'engine'],
  backends: ['system model errors', ''],
  bolt: ['system errors', ''],
  system: ['model errors', ''],
  model: ['errors', ''],
  errors: ['', ''],
};

/** Files at the top of src/; all other rooms are folders, those of engine/ each its own. */
const roots: Record<string, string> = {
  'index.ts': 'entry',
  'backend.ts': 'entry',
  'opentelemetry.ts': 'entry',
  'open.ts': 'db',
  'db.ts': 'db',
  'db-host.ts': 'db',
  'db-options.ts': 'db',
  'factories.ts': 'db',
  'defaults.ts': 'db',
  'cluster.ts': 'db',
  'compact-store.ts': 'db',
  'tracing.ts': 'db',
  'cluster-hosts.ts': 'db',
  'context.ts': 'context',
  'in-use.ts': 'errors',
  'no-store.ts': 'errors',
  'errors.ts': 'errors',
  'held-paths.ts': 'errors',
};

/** The same inside the engines: folders, under the files at the engine's top. */
const inside: Record<string, Record<string, string>> = {
  'engine/lmdb': {
    '': 'flush wal tree codec disk',
    flush: 'wal tree codec disk',
    wal: 'codec disk',
    tree: 'codec disk',
    codec: '',
    disk: '',
  },
  'engine/etcd': {
    '': 'commit mirror cluster format client',
    commit: 'mirror cluster format client',
    mirror: 'format client',
    cluster: 'format client',
    format: 'client',
    client: '',
  },
};

type Kind = 'value' | 'type';
interface Import {
  from: string;
  to: string;
  kind: Kind;
}

const files = readdirSync(src, { recursive: true })
  .map(String)
  .filter((file) => file.endsWith('.ts') && !file.endsWith('.d.ts'));

function roomOf(file: string): string {
  const [first = '', second] = file.split('/');
  if (second === undefined) return roots[first] ?? `no room for src/${first}`;
  if (first !== 'engine') return first;
  // engine/suite.ts is the way into engine/suite/.
  const inner = second.replace(/\.ts$/, '');
  return files.some((other) => other.startsWith(`engine/${inner}/`)) ? `engine/${inner}` : 'engine';
}

function importsOf(from: string): Import[] {
  const text = readFileSync(join(src, from), 'utf8');
  const found: Import[] = [];
  const add = (to: string, kind: Kind): void => {
    found.push({ from, to: normalize(join(dirname(from), to)).replace(/\.js$/, '.ts'), kind });
  };
  for (const [, typeOnly, names = '', to = ''] of text.matchAll(
    /^(?:import|export) (type )?([^;']*?)from '(\.[^']+)';/gm,
  )) {
    // Without braces it is all that there is.
    const list = /^\{([^}]*)\}/
      .exec(names)?.[1]
      ?.split(',')
      .filter((name) => name.trim() !== '') ?? ['*'];
    const isType = typeOnly !== undefined || list.every((name) => name.trim().startsWith('type '));
    add(to, isType ? 'type' : 'value');
  }
  for (const [, to = ''] of text.matchAll(/^import '(\.[^']+)';/gm)) add(to, 'value');
  for (const [, to = ''] of text.matchAll(/\bimport\(\s*'(\.[^']+)'/g)) add(to, 'value');
  return found;
}

const imports = files.flatMap(importsOf);

test('given the imports of src/, when put together by room, then they are the arrows of the table', () => {
  const arrows = new Map<string, Record<Kind, Set<string>>>();
  for (const { from, to, kind } of imports) {
    assert.ok(files.includes(to), `src/${from} imports ${to}, which is not there`);
    const [room, other] = [roomOf(from), roomOf(to)];
    if (!arrows.has(room)) arrows.set(room, { value: new Set(), type: new Set() });
    if (room !== other) arrows.get(room)![kind].add(other);
  }
  const order = Object.keys(doors);
  const inOrder = (names: Iterable<string>): string =>
    [...names].sort((a, b) => order.indexOf(a) - order.indexOf(b)).join(' ');
  const used: typeof doors = {};
  for (const [room, { value, type }] of arrows) {
    used[room] = [inOrder(value), inOrder([...type].filter((other) => !value.has(other)))];
  }
  assert.deepEqual(used, doors);
});

for (const [engine, table] of Object.entries(inside)) {
  test(`given the folders of ${engine}, when their imports are put together, then they are its table, and go down`, () => {
    const folderOf = (file: string): string => {
      const [first = '', second] = file.slice(engine.length + 1).split('/');
      return second === undefined ? '' : first;
    };
    const order = Object.keys(table);
    const used = Object.fromEntries(order.map((folder) => [folder, new Set<string>()]));
    const isIn = (file: string): boolean => file.startsWith(`${engine}/`);
    for (const { from, to } of imports.filter(({ from, to }) => isIn(from) && isIn(to))) {
      const [folder, other] = [folderOf(from), folderOf(to)];
      assert.ok(
        order.indexOf(folder) <= order.indexOf(other),
        `src/${from} imports src/${to}, which is above it`,
      );
      if (folder !== other) used[folder]?.add(other);
    }
    const names = (set: Set<string>): string => order.filter((other) => set.has(other)).join(' ');
    assert.deepEqual(
      Object.fromEntries(Object.entries(used).map(([folder, set]) => [folder, names(set)])),
      table,
    );
  });
}

test('given the table, when read from the top, then no room imports one above itself', () => {
  const above = new Set<string>();
  for (const [room, [others]] of Object.entries(doors)) {
    const up = others.split(' ').filter((other) => above.has(other));
    assert.deepEqual(up, [], `${room} imports what is above it`);
    above.add(room);
  }
});

test('given the imports of src/, types too, when followed, then none leads back to its file', () => {
  const left = new Set(files);
  // What imports nothing that is left, or is imported by nothing that is, is on no circle.
  for (let before = 0; before !== left.size; ) {
    before = left.size;
    const among = imports.filter(({ from, to }) => left.has(from) && left.has(to));
    const ends = [new Set(among.map(({ from }) => from)), new Set(among.map(({ to }) => to))];
    for (const file of left) if (!ends.every((end) => end.has(file))) left.delete(file);
  }
  assert.deepEqual([...left], []);
});

/** Files at one level of a folder, at most. */
const LEVEL = 22;

test('given the folders of src/, when looked into, then one look takes in what is there', () => {
  const counts = new Map<string, number>();
  for (const file of files) counts.set(dirname(file), (counts.get(dirname(file)) ?? 0) + 1);
  const over = [...counts].filter(([, count]) => count > LEVEL).map(([folder]) => folder);
  assert.deepEqual(over, []);
});

/** The C++ core: folders of native/, under the addon and the core at its top. */
const nativeDoors: Record<string, string> = {
  '': 'checkpoint mark graph base',
  checkpoint: 'mark graph base',
  mark: 'graph base',
  graph: 'base',
  base: '',
  host: '',
};

test('given the includes of native/, when put together by folder, then they are its table, and go down', () => {
  const native = fileURLToPath(new URL('../../../native/', import.meta.url));
  const used: typeof nativeDoors = {};
  for (const folder of Object.keys(nativeDoors)) {
    const others = readdirSync(join(native, folder))
      .filter((name) => /\.(cc|h)$/.test(name))
      .map((name) => readFileSync(join(native, folder, name), 'utf8'))
      .flatMap((text) => [...text.matchAll(/^#include "(?:(\w+)\/)?\w+\.h"/gm)])
      .map(([, other = '']) => other)
      .filter((other) => other !== folder);
    used[folder] = Object.keys(nativeDoors)
      .filter((other) => others.includes(other))
      .join(' ');
  }
  assert.deepEqual(used, nativeDoors);
});
