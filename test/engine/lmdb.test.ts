/** The LMDB engine's own promises: files, owners, reopening, checkpoints, damage, a full disk, sudden death. */

import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, linkSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { chmod, mkdir, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { open as openLmdb } from 'lmdb';
import type { Engine } from '../../src/engine/contract.js';
import type { CoreEngine } from '../../src/engine/core/engine.js';
import { type LmdbEngineOptions, openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { LmdbStorage } from '../../src/engine/lmdb/storage.js';
import { LAYOUT } from '../../src/engine/lmdb/tree/databases.js';
import { key } from '../../src/engine/schema/keys.js';
import { assertKind } from '../../src/engine/suite/support.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { EbbtideError } from '../../src/errors.js';
import { createGraph } from '../../src/graph/carriers.js';
import { digestOf } from '../../src/model/digest.js';
import { tempDir } from './temp.js';

const blob = (i: number): string => key('blobs', 'ns', `b${String(i).padStart(6, '0')}`);

async function open(
  t: TestContext,
  dir: string,
  options: Partial<LmdbEngineOptions> = {},
): Promise<CoreEngine> {
  const engine = await openLmdbEngine(dir, { indexer: suiteIndexer, graph: createGraph(), ...options });
  t.after(() => engine.close());
  return engine;
}

/** Puts `count` blobs, each referring to the next. */
async function fill(engine: Engine, count: number, from = 0): Promise<void> {
  for (let i = from; i < from + count; ) {
    await engine.update(
      (tx) => {
        for (const end = Math.min(i + 1000, from + count); i < end; i++) {
          tx.put(blob(i), { size: i, refs: { label: blob(i + 1) } });
        }
      },
      { durability: 'visible' },
    );
  }
  await engine.flush();
}

const dataFile = (dir: string): string => join(dir, 'meta.mdb');

test('given a store with records, when opened again, then all is there and the start was clean', async (t) => {
  const dir = await tempDir(t);
  const first = await open(t, join(dir, 'made', 'by', 'opening'));
  assert.equal(first.cleanStart, true);
  await fill(first, 100);
  await first.update((tx) => tx.next(key('meta', 'n')));
  const { revision } = first;
  await first.close();
  const second = await open(t, join(dir, 'made', 'by', 'opening'));
  assert.equal(second.cleanStart, true);
  assert.equal(second.revision, revision);
  assert.equal(second.stats().records, 100);
  assert.equal([...second.scan('blobs')].length, 100);
  assert.deepEqual(second.verifyGraph(), []);
  assert.equal(second.idOf(blob(100)) !== undefined, true);
});

test('given a store with a hard-linked copy, when it is opened, then that is said; without one, nothing is', async (t) => {
  const dir = await tempDir(t);
  const messages: string[] = [];
  const warn = (message: string): void => void messages.push(message);
  await (await open(t, dir, { warn })).close();
  linkSync(dataFile(dir), join(dir, 'copy'));
  await (await open(t, dir, { warn })).close();
  assert.deepEqual(messages.length, 1);
  assert.ok(messages[0]?.startsWith(`${dataFile(dir)} has another name, by a hard link`), messages[0]);
});

test('given a store, when it is open, then a second owner is refused and the files stay untouched', async (t) => {
  const dir = await tempDir(t);
  const engine = await open(t, dir);
  await fill(engine, 10);
  // The owner itself has nothing left to write.
  assert.ok(engine.storage instanceof LmdbStorage);
  await engine.storage.drain();
  const before = digestOf(readFileSync(dataFile(dir)));
  await assert.rejects(open(t, dir), (error) => {
    assertKind('Unavailable')(error);
    assert.ok(error instanceof EbbtideError && error.message.includes(dir) && error.remedy !== undefined);
    assert.match(error.message, /in use by this process/);
    return true;
  });
  assert.equal(digestOf(readFileSync(dataFile(dir))), before);
  const child = spawn(process.execPath, [fileURLToPath(import.meta.resolve('./lmdb-child.js')), dir, 'once']);
  const [code] = await once(child, 'exit');
  assert.equal(code, 3, 'the child was refused as Unavailable');
  assert.equal(digestOf(readFileSync(dataFile(dir))), before);
  await engine.close();
  await (await open(t, dir)).close();
});

test('given a store, when opened read-only, then it reads, refuses writes, and changes no file', async (t) => {
  const dir = await tempDir(t);
  await assert.rejects(open(t, dir, { readOnly: true }), assertKind('NotFound'));
  const writer = await open(t, dir);
  await fill(writer, 10);
  await writer.close();
  const before = readFileSync(dataFile(dir));
  const reader = await open(t, dir, { readOnly: true });
  const second = await open(t, dir, { readOnly: true });
  assert.equal([...reader.scan('blobs')].length, 10);
  assert.deepEqual(second.verifyGraph(), []);
  await assert.rejects(
    reader.update((tx) => tx.put(blob(1), 'v')),
    assertKind('FailedPrecondition'),
  );
  await reader.close();
  await second.close();
  assert.deepEqual(readFileSync(dataFile(dir)), before);
});

test('given files that are not a store, when opened, then each is refused by name and left alone', async (t) => {
  const dir = await tempDir(t);
  const cases: [string, (path: string, home: string) => Promise<void> | void, RegExp][] = [
    [
      'text',
      (path) => writeFileSync(path, 'this is a text, and long enough to be a header'.repeat(200)),
      /not an LMDB file/,
    ],
    ['short text', (path) => writeFileSync(path, 'short'), /not an LMDB file/],
    ['foreign', makeForeignLmdb, /LMDB file of another program/],
    ['newer', (path) => makeForeignLmdb(path, `ebbtide ${LAYOUT + 1}`), /layout \d/],
    ['directory', async (path) => void (await mkdir(path)), /not a regular file/],
  ];
  for (const [name, make, message] of cases) {
    const home = join(dir, name);
    await mkdir(home);
    const path = dataFile(home);
    await make(path, home);
    const before = statSync(path).isFile() ? readFileSync(path) : undefined;
    await assert.rejects(open(t, home), (error) => {
      assertKind('FailedPrecondition')(error);
      assert.ok(error instanceof EbbtideError);
      assert.match(error.message, message);
      assert.equal(error.object, path);
      assert.ok(error.remedy !== undefined);
      return true;
    });
    if (before !== undefined) assert.deepEqual(readFileSync(path), before, name);
  }
});

async function makeForeignLmdb(path: string, format?: unknown): Promise<void> {
  const env = openLmdb({ path, noSubdir: true });
  if (typeof format === 'string' && format.includes('ebbtide ')) {
    const meta = env.openDB<Uint8Array, string>('meta', { encoding: 'binary' });
    await meta.put('format', Buffer.from(format));
  } else {
    await env.put('somebody', 'else');
  }
  await env.close();
}

test('given paths that cannot be opened, when opened, then the error names path and remedy', async (t) => {
  const dir = await tempDir(t);
  writeFileSync(join(dir, 'file'), 'x');
  await symlink(join(dir, 'nowhere', 'at', 'all'), join(dir, 'dangling'));
  for (const name of ['file', 'file/below']) {
    await assert.rejects(open(t, join(dir, name)), (error) => {
      assertKind('FailedPrecondition')(error);
      assert.ok(error instanceof EbbtideError && error.object?.startsWith(join(dir, 'file')));
      assert.ok(error.remedy !== undefined);
      return true;
    });
  }
  assert.equal(readFileSync(join(dir, 'file'), 'utf8'), 'x');
});

test('given a user without access, when a store is opened, then FailedPrecondition names the path', async (t) => {
  const { seteuid, geteuid } = process;
  if (seteuid === undefined || geteuid === undefined || geteuid() !== 0) {
    t.skip('only root can act as another user here');
    return;
  }
  const dir = await tempDir(t);
  await (await open(t, dir)).close();
  await chmod(dir, 0o700);
  seteuid(65534);
  try {
    await assert.rejects(open(t, dir), (error) => {
      assertKind('FailedPrecondition')(error);
      assert.ok(error instanceof EbbtideError && error.object?.startsWith(dir) && error.remedy !== undefined);
      return true;
    });
  } finally {
    seteuid(0);
  }
});

test('given a truncated file, when opened, then Unknown, and the process lives', async (t) => {
  const dir = await tempDir(t);
  const engine = await open(t, dir);
  await fill(engine, 2000);
  await engine.close();
  const path = dataFile(dir);
  const { size } = statSync(path);
  for (const length of [size - 4096, Math.floor(size / 2), 8192, 4096, 100]) {
    truncateSync(path, length);
    await assert.rejects(open(t, dir), (error) => {
      assertKind('Unknown')(error);
      assert.ok(error instanceof EbbtideError && error.object === path);
      assert.match(error.message, /truncated/);
      return true;
    });
    assert.equal(statSync(path).size, length);
  }
  // What is left when the very first write never happened is a new store.
  truncateSync(path, 0);
  await (await open(t, dir)).close();
});

test('given a checkpoint and commits after it, when opened, then the graph has both', async (t) => {
  const dir = await tempDir(t);
  const first = await open(t, dir);
  await fill(first, 30_000);
  await first.close();
  const second = await open(t, dir);
  await fill(second, 50, 40_000);
  await second.update((tx) => tx.delete(blob(0)));
  await second.close();
  const warnings: string[] = [];
  const third = await open(t, dir, { warn: (message) => warnings.push(message) });
  assert.deepEqual(warnings, []);
  assert.equal(third.stats().records, 30_049);
  assert.deepEqual(third.verifyGraph(), []);
});

test('given a damaged checkpoint or journal, when opened, then it warns once and rebuilds the graph', async (t) => {
  const dir = await tempDir(t);
  const first = await open(t, dir);
  await fill(first, 2000);
  await first.update((tx) => {
    tx.put(key('leases', 'ns', 'l'), { root: true });
    tx.link(key('leases', 'ns', 'l'), 'holds', blob(7));
    tx.put(key('meta', 'inline'), 'v');
  });
  await first.close();
  for (const name of ['checkpoints', 'journal']) {
    const env = openLmdb({ path: dataFile(dir), noSubdir: true, maxDbs: 14 });
    const db = env.openDB<Uint8Array, Uint8Array>(name, { keyEncoding: 'binary', encoding: 'binary' });
    for (const k of [...db.getKeys()]) {
      const value = Buffer.from(db.get(k)!);
      value[value.length >> 1]! ^= 0x55;
      await db.put(k, name === 'journal' ? value.subarray(0, 5) : value);
    }
    if (name === 'journal') await db.put(Buffer.from([0, 0, 0, 0, 0, 1, 0, 0]), Buffer.alloc(12));
    await env.close();
    const warnings: string[] = [];
    const engine = await open(t, dir, { warn: (message) => warnings.push(message) });
    assert.equal(warnings.length, 1, name);
    assert.match(warnings[0]!, /rebuilt/);
    assert.deepEqual(engine.verifyGraph(), []);
    assert.equal(engine.stats().records, 2002);
    await fill(engine, 10, 5000);
    await engine.update((tx) => {
      for (let i = 0; i < 10; i++) tx.delete(blob(5000 + i));
    });
    await engine.close();
    const after: string[] = [];
    const again = await open(t, dir, { warn: (message) => after.push(message) });
    assert.deepEqual(after, []);
    assert.deepEqual(again.verifyGraph(), []);
    await again.close();
  }
});

test('given a growing journal, when it outgrows the checkpoint, then one is written beside the commits', async (t) => {
  const dir = await tempDir(t);
  const engine = await open(t, dir);
  await fill(engine, 60_000);
  const deadline = Date.now() + 60_000;
  const copy = join(await tempDir(t), 'copy.mdb');
  let checkpoint: unknown;
  while (checkpoint === undefined && Date.now() < deadline) {
    await engine.update((tx) => tx.put(key('meta', 'n'), 'v'));
    writeFileSync(copy, readFileSync(dataFile(dir)));
    const env = openLmdb({ path: copy, noSubdir: true, maxDbs: 14 });
    const meta = env.openDB<Uint8Array, string>('meta', { encoding: 'binary' });
    checkpoint = JSON.parse(Buffer.from(meta.get('state')!).toString()).checkpoint;
    await env.close();
  }
  assert.ok(checkpoint !== undefined, 'a checkpoint was written while the store was open');
  await engine.close();
  assert.deepEqual((await open(t, dir)).verifyGraph(), []);
});

test('given a visible commit, when it resolves, then readers see it; flush puts it on disk', async (t) => {
  const dir = await tempDir(t);
  const engine = await open(t, dir);
  let visible = 0;
  for (let i = 0; i < 200; i++) {
    await engine.update((tx) => tx.put(blob(i), 'v'), { durability: 'visible' });
    if (engine.has(blob(i))) visible++;
  }
  assert.equal(visible, 200);
  await engine.flush();
  await engine.close();
  assert.equal((await open(t, dir)).stats().records, 200);
});

interface Acknowledged {
  child: ChildProcess;
  lines: string[];
  first: Promise<void>;
}

/** A child that writes records one after the other and prints each when it is durable. */
function startWriter(dir: string): Acknowledged {
  const script = fileURLToPath(import.meta.resolve('./lmdb-child.js'));
  const child = spawn(process.execPath, [script, dir, 'write'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const lines: string[] = [];
  const reader = createInterface({ input: child.stdout! });
  const first = new Promise<void>((resolve) => {
    reader.on('line', (line) => {
      lines.push(line);
      if (lines.length > 20) resolve();
    });
    reader.on('close', resolve);
  });
  return { child, lines, first };
}

test('given a writer that is killed, when the store is opened again, then every acknowledged write is there', async (t) => {
  const dir = await tempDir(t);
  for (let round = 0; round < 3; round++) {
    const { child, lines, first } = startWriter(dir);
    await first;
    await new Promise((resolve) => setTimeout(resolve, 30 * round));
    child.kill('SIGKILL');
    await once(child, 'close');
    const warnings: string[] = [];
    const engine = await open(t, dir, { warn: (message) => warnings.push(message) });
    assert.equal(engine.cleanStart, false);
    assert.ok(lines.length > 0);
    for (const line of lines) {
      const [name, size] = line.split(' ');
      assert.deepEqual(
        engine.get(key('images', 'ns', name!)),
        { size: Number(size), refs: { label: blob(1) } },
        line,
      );
    }
    assert.deepEqual(engine.verifyGraph(), []);
    await engine.close();
  }
});

test('given a full disk, when a commit cannot be written, then Unavailable, nothing of it is visible, reads go on', async (t) => {
  const dir = await tempDir(t);
  const mount = join(dir, 'small');
  await mkdir(mount);
  if (!(await run('mount', ['-t', 'tmpfs', '-o', 'size=3m', 'tmpfs', mount]))) {
    t.skip('mounting a small tmpfs is not permitted here');
    return;
  }
  try {
    await fillDisk(t, join(mount, 'store'));
  } finally {
    await run('umount', ['-l', mount]);
  }
});

async function fillDisk(t: TestContext, dir: string): Promise<void> {
  // The lmdb package reports the failure there, too.
  t.mock.method(console, 'error', () => {});
  const engine = await open(t, dir);
  await fill(engine, 500);
  await engine.update((tx) => tx.put(key('meta', 'seen'), 'before'));
  let stored = 0;
  const big = 'x'.repeat(60_000);
  await assert.rejects(
    async () => {
      for (let i = 0; i < 200; i++) {
        await engine.update((tx) => {
          tx.put(key('images', 'ns', `big${i}`), { value: big, refs: { label: blob(i) } });
        });
        stored++;
      }
    },
    (error) => {
      assertKind('Unavailable')(error);
      assert.ok(error instanceof EbbtideError && error.remedy !== undefined);
      return true;
    },
  );
  assert.ok(stored > 0);
  assert.equal(engine.has(key('images', 'ns', `big${stored}`)), false);
  assert.equal([...engine.scan('images')].length, stored);
  assert.equal(engine.get(key('meta', 'seen')), 'before');
  assert.deepEqual(engine.verifyGraph(), []);
  await engine.update((tx) => {
    for (let i = 0; i < stored; i++) tx.delete(key('images', 'ns', `big${i}`));
  });
  await fill(engine, 10, 1000);
  assert.deepEqual(engine.verifyGraph(), []);
  await engine.close();
  const again = await open(t, dir);
  assert.equal(again.stats().records, 511);
  assert.deepEqual(again.verifyGraph(), []);
  await again.close();
}

async function run(command: string, args: string[]): Promise<boolean> {
  const child = spawn(command, args, { stdio: 'ignore' });
  try {
    const [code] = await once(child, 'exit');
    return code === 0;
  } catch {
    return false;
  }
}

test('given long keys that share their beginning, when stored and opened again, then each keeps its own value', async (t) => {
  const dir = await tempDir(t);
  const names = [550, 1024, 2000, 32_000].flatMap((shared) =>
    Array.from({ length: 20 }, (_, i) => `${'p'.repeat(shared)}${(i * 7) % 20}`),
  );
  const first = await open(t, dir);
  await first.update((tx) => {
    for (const name of names) tx.put(key('images', 'ns', name), { ref: name });
  });
  await first.close();
  const engine = await open(t, dir);
  assert.ok(existsSync(dataFile(dir)));
  for (const name of names) assert.deepEqual(engine.get(key('images', 'ns', name)), { ref: name });
  await engine.update((tx) => {
    for (const name of names.slice(0, 40)) tx.delete(key('images', 'ns', name));
  });
  assert.deepEqual(
    [...engine.scan(key('images', 'ns'))].map(([k]) => k),
    names
      .slice(40)
      .sort()
      .map((name) => key('images', 'ns', name)),
  );
});
