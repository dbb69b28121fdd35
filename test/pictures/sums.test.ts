/** Every sum of a picture is one of `du`, and so of `du -B1`. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { before, test } from 'node:test';
import type { DB } from '../../src/db.js';
import { openDB } from '../../src/open.js';
import type { PictureFormat } from '../../src/pictures/draw.js';
import { fillOperatorStore } from '../cli/operator-store.js';
import { tempDir } from '../support/temp.js';

interface Node {
  kind: string;
  name: string;
  bytes: number;
  lastUsedAt?: string;
  roots?: number;
  children?: Node[];
}

let root: string;
before(async () => {
  const dir = await tempDir();
  root = join(dir, 'store');
  await fillOperatorStore(root, dir);
});

const opened = (): Promise<DB> => openDB({ root, readOnly: true, log: () => undefined });

async function drawn(db: DB, format: PictureFormat): Promise<string> {
  let text = '';
  for await (const piece of db.picture({}, { format, disk: true })) text += piece;
  return text;
}

function* below(node: Node, above: readonly Node[] = []): Generator<[Node, readonly Node[]]> {
  yield [node, above];
  for (const child of node.children ?? []) yield* below(child, [...above, node]);
}

const rootKinds = ['image', 'container', 'lease', 'ingest', 'sandbox'];

test('given a host with something of everything, when it is drawn as JSON, then the sums are those of du', async () => {
  await using db = await opened();
  const { bytes, disk, tree } = JSON.parse(await drawn(db, 'json')) as {
    bytes: number;
    disk: { total: number; lines: Record<string, number> };
    tree: Node;
  };
  const usage = await db.du({}, { by: 'root', disk: true });
  assert.equal(bytes, usage.disk!.total);
  assert.equal(bytes, Number(execFileSync('du', ['-s', '-B1', root], { encoding: 'utf8' }).split('\t')[0]));
  assert.deepEqual(disk.lines, usage.disk!.lines);
  for (const [node] of below(tree)) {
    const sum = (node.children ?? []).reduce((all, child) => all + child.bytes, 0);
    if (node.children !== undefined && node.children.length > 0) assert.equal(node.bytes, sum, node.name);
  }
  const line = (kind: string): number =>
    tree.children!.filter((child) => child.kind === kind).reduce((sum, child) => sum + child.bytes, 0);
  assert.equal(line('garbage'), usage.disk!.lines.garbage);
  assert.equal(line('orphans'), usage.disk!.lines.orphans);
  const rows = [...below(tree)]
    .filter(([{ kind, children }]) => children !== undefined && rootKinds.includes(kind))
    .map(([{ kind, name, bytes: retained, lastUsedAt }, above]) => {
      assert.match(lastUsedAt ?? '', /^20/);
      return [kind, above[1]!.name, name, retained].join(' ');
    });
  assert.deepEqual(
    rows.sort(),
    usage.rows
      .map(({ kind, namespace, name, retained }) => [kind, namespace, name, retained].join(' '))
      .sort(),
  );
  for (const [{ roots, name }, above] of below(tree)) {
    const [place] = above.slice(-1);
    if (roots === undefined) continue;
    const expected: Readonly<Record<string, (n: number) => boolean>> = {
      'shared by 2': (n) => n === 2,
      'shared by 3-9': (n) => n > 2 && n < 10,
      'shared by more': (n) => n === 10,
    };
    const isAsNamed =
      expected[place!.name] ?? ((n: number) => n === (rootKinds.includes(place!.kind) ? 1 : 0));
    assert.ok(isAsNamed(roots), `${name}: ${roots} in ${place!.name}`);
  }
});

interface Entry {
  name: string;
  dsize?: number;
  ino?: number;
  hlnkc?: boolean;
  nlink?: number;
}
type Directory = [Entry, ...(Entry | Directory)[]];

/** As ncdu counts: a file with several links once. */
function sumOf([, ...entries]: Directory, seen = new Set<number>()): number {
  let sum = 0;
  for (const entry of entries) {
    if (Array.isArray(entry)) sum += sumOf(entry, seen);
    else if (!(entry.hlnkc === true && seen.has(entry.ino!))) {
      sum += entry.dsize!;
      if (entry.hlnkc === true) seen.add(entry.ino!);
    }
  }
  return sum;
}

function* directories(directory: Directory, above: string[] = []): Generator<[string[], Directory]> {
  const path = [...above, directory[0].name];
  yield [path, directory];
  for (const entry of directory.slice(1)) if (Array.isArray(entry)) yield* directories(entry, path);
}

test('given the same host, when it is drawn for ncdu, then a root is a directory of all it reaches, and what is shared is linked', async () => {
  await using db = await opened();
  const [major, minor, , host] = JSON.parse(await drawn(db, 'ncdu')) as [number, number, object, Directory];
  assert.deepEqual([major, minor], [1, 2]);
  const usage = await db.du({}, { by: 'root', disk: true });
  assert.equal(sumOf(host), usage.disk!.total);
  const totals = new Map<string, number>();
  const links = new Map<number, { found: number; said: number }>();
  for (const [path, directory] of directories(host)) {
    totals.set(`${path[1]} ${path.at(-1)}`, sumOf(directory));
    for (const entry of directory.slice(1) as Entry[]) {
      if (entry.hlnkc !== true) continue;
      const known = links.get(entry.ino!);
      links.set(entry.ino!, { found: (known?.found ?? 0) + 1, said: entry.nlink! });
    }
  }
  for (const { namespace, name, total } of usage.rows)
    assert.equal(totals.get(`${namespace} ${name}`), total, name);
  assert.ok(links.size > 5);
  for (const { found, said } of links.values()) assert.equal(found, said);
});
