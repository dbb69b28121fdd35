/** The model of a disk, on calls given by hand. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { tempDir } from '../support/db.js';
import { Random } from '../support/random.js';
import { Disk } from './disk.js';
import type { DiskEvent } from './log.js';

const ROOT = '/store';
const make = (name: string, fd = 3): DiskEvent => ({
  kind: 'open',
  fd,
  path: `${ROOT}/${name}`,
  created: true,
  truncated: false,
});
const top = (fd: number): DiskEvent => ({ kind: 'open', fd, path: ROOT, created: false, truncated: false });
const write = (offset: number, letter: string, length: number, through = false): DiskEvent => ({
  kind: 'write',
  fd: 3,
  offset,
  bytes: Buffer.alloc(length, letter),
  through,
});
const begin = (fd: number): DiskEvent => ({ kind: 'syncBegin', fd });
const end = (fd: number): DiskEvent => ({ kind: 'syncEnd', fd, done: true });
const flush = (fd: number): DiskEvent[] => [begin(fd), end(fd)];
const named = (name: string): DiskEvent[] => [make(name), top(4), ...flush(4)];

/** What the file `a` (or another) may have after a power loss, over many losses; undefined: it is not there. */
async function states(t: TestContext, events: DiskEvent[], name = 'a'): Promise<Set<string | undefined>> {
  const disk = new Disk(ROOT);
  for (const event of events) disk.apply(event);
  const dir = await tempDir(t);
  const found = new Set<string | undefined>();
  for (let seed = 0; seed < 200; seed++) {
    disk.restore(join(dir, `${seed}`), new Random(seed));
    const path = join(dir, `${seed}`, name);
    found.add(existsSync(path) ? sectors(readFileSync(path)) : undefined);
  }
  return found;
}

/** One letter a sector, by its first byte. */
const sectors = (bytes: Buffer): string => {
  let text = '';
  for (let at = 0; at < bytes.length; at += 512) text += String.fromCharCode(bytes[at] || 0x2e);
  return text;
};

test('given a flushed write, then it is always there; given one that is not, then any of its sectors may be', async (t) => {
  const flushed = [...named('a'), write(0, 'x', 1024), ...flush(3)];
  assert.deepEqual(await states(t, flushed), new Set(['xx']));
  const over = await states(t, [...flushed, write(0, 'y', 1024)]);
  assert.deepEqual([...over].sort(), ['xx', 'xy', 'yx', 'yy']);
});

test('given two writes of one sector, then a power loss leaves the old, the first or the second', async (t) => {
  const events = [...named('a'), write(0, 'x', 512), ...flush(3), write(0, 'y', 512), write(0, 'z', 512)];
  assert.deepEqual([...(await states(t, events))].sort(), ['x', 'y', 'z']);
});

test('given a write during a flush, then that flush does not cover it', async (t) => {
  const events = [...named('a'), write(0, 'x', 512), begin(3), write(0, 'y', 512), end(3)];
  assert.deepEqual([...(await states(t, events))].sort(), ['x', 'y']);
});

test('given a flush that has not ended, then it promises nothing', async (t) => {
  const events = [...named('a'), write(0, 'x', 512), begin(3)];
  assert.deepEqual([...(await states(t, events))].sort(), ['', '.', 'x'].sort());
});

test('given a write that goes through, then it is there, and those before it are as uncertain as ever', async (t) => {
  const events = [...named('a'), write(0, 'x', 1024), write(512, 'y', 512, true)];
  assert.deepEqual([...(await states(t, events))].sort(), ['.y', 'xy']);
});

test('given a file cut and grown again, then what was cut is zeroes or not cut, never something else', async (t) => {
  const flushed = [...named('a'), write(0, 'x', 1024), ...flush(3)];
  const events: DiskEvent[] = [
    ...flushed,
    { kind: 'truncate', fd: 3, size: 512 },
    { kind: 'truncate', fd: 3, size: 1024 },
  ];
  for (const state of await states(t, events)) assert.match(state ?? '', /^(xx|x\.|x)$/);
});

test('given a flushed file whose directory is not, then its name may be missing', async (t) => {
  const events = [make('a'), write(0, 'x', 512), ...flush(3)];
  assert.deepEqual(await states(t, events), new Set(['x', undefined]));
  assert.deepEqual(await states(t, [...events, top(4), ...flush(4)]), new Set(['x']));
});

test('given a renamed file, then it has one of its names, and the new one after a flush of the directory', async (t) => {
  const events: DiskEvent[] = [
    ...named('a'),
    write(0, 'x', 512),
    ...flush(3),
    { kind: 'rename', from: `${ROOT}/a`, to: `${ROOT}/b` },
  ];
  assert.deepEqual(await states(t, events, 'a'), new Set(['x', undefined]));
  assert.deepEqual(await states(t, events, 'b'), new Set(['x', undefined]));
  const flushed = [...events, ...flush(4)];
  assert.deepEqual(await states(t, flushed, 'a'), new Set([undefined]));
  assert.deepEqual(await states(t, flushed, 'b'), new Set(['x']));
});

test('given names made one after the other, then a later one is never there without the earlier', async (t) => {
  const disk = new Disk(ROOT);
  for (const event of [make('a', 3), make('b', 4), make('c', 5)]) disk.apply(event);
  const dir = await tempDir(t);
  const seen = new Set<string>();
  for (let seed = 0; seed < 200; seed++) {
    disk.restore(join(dir, `${seed}`), new Random(seed));
    seen.add(['a', 'b', 'c'].filter((name) => existsSync(join(dir, `${seed}`, name))).join(''));
  }
  for (const names of seen) assert.ok(['', 'a', 'ab', 'abc'].includes(names), names);
  assert.ok(seen.size > 2);
});
