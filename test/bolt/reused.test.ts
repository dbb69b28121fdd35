/**
 * A page that one commit frees and the next one writes again, while a read of it is under way: what the read has is of neither tree. In
 * practice it takes two commits within one read of another thread, so the writer here waits for each look of the reading.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as yieldToOthers } from 'node:timers/promises';
import { rootBucket } from '../../src/bolt/bucket.js';
import type { BoltSource } from '../../src/bolt/file.js';
import type { Meta } from '../../src/bolt/format.js';
import { readOnce } from '../../src/bolt/snapshot.js';

const PAGE = 512;
const PAGES = 200;

function header(page: Buffer, id: number, flags: number, count: number): void {
  page.writeUInt32LE(id, 0);
  page.writeUInt16LE(flags, 8);
  page.writeUInt16LE(count, 10);
}

/** A leaf with one entry. */
function leaf(id: number, key: string, value: string): Buffer {
  const page = Buffer.alloc(PAGE);
  header(page, id, 2, 1);
  page.writeUInt32LE(16, 20);
  page.writeUInt32LE(key.length, 24);
  page.writeUInt32LE(value.length, 28);
  page.write(key + value, 32);
  return page;
}

/** With a page for each key. */
function branch(id: number, children: Readonly<Record<string, number>>): Buffer {
  const page = Buffer.alloc(PAGE);
  const all = Object.entries(children);
  header(page, id, 1, all.length);
  for (const [n, [key, child]] of all.entries()) {
    const at = 16 + n * 16;
    const data = 16 + all.length * 16 + n;
    page.writeUInt32LE(data - at, at);
    page.writeUInt32LE(key.length, at + 4);
    page.writeUInt32LE(child, at + 8);
    page.write(key, data);
  }
  return page;
}

/** Far from one another, so that each has a read of its own. */
const [A, B, C, ELSEWHERE] = [20, 80, 140, 190];

/** Each commit writes its pages; the second of them writes the page that the first one freed. */
const COMMITS = [
  [branch(2, { a: A, b: B, c: C }), leaf(A, 'a', 'old'), leaf(B, 'b', 'old'), leaf(C, 'c', 'old')],
  [branch(3, { a: A, b: B, c: ELSEWHERE }), leaf(ELSEWHERE, 'c', 'moved')],
  [branch(4, { a: A, b: B, c: C }), leaf(C, 'c', 'new')],
];

class Reused implements BoltSource {
  readonly path = 'file.db';
  readonly #bytes = Buffer.alloc(PAGES * PAGE);
  #commits = 0;
  /** Since the last commit: one that sees it, and one when it was followed. */
  #looks = 0;

  constructor() {
    this.#commit();
  }

  #commit(): void {
    for (const page of COMMITS[this.#commits++] ?? []) page.copy(this.#bytes, page.readUInt32LE(0) * PAGE);
    this.#looks = 0;
  }

  length(): number {
    return this.#bytes.length;
  }

  read(bytes: Buffer, at: number): number {
    return this.#bytes.copy(bytes, 0, at);
  }

  /** What was there at the beginning; it ends when as many commits were followed as pages were read before. */
  async readBeside(bytes: Buffer, at: number): Promise<number> {
    this.read(bytes, at);
    const before = [A, B, C].indexOf(at / PAGE);
    while (before > 0 && (this.#commits < before + 1 || this.#looks < 2)) await yieldToOthers();
    if (before >= 0 && before < 2) this.#commit();
    return bytes.length;
  }

  newest(): Meta {
    this.#looks++;
    return { pageSize: PAGE, root: 1 + this.#commits, highWater: PAGES, transaction: BigInt(this.#commits) };
  }
}

test('given a page that is written again while a read of it is under way, then what the read has is not taken for it', async () => {
  const snapshot = await readOnce(new Reused(), 0, { lanes: 3, followedMax: 1 });
  const read: Record<string, string> = {};
  rootBucket(snapshot!).each(({ key, text }) => {
    read[key] = text;
  });
  assert.deepEqual([snapshot!.commits, read], [2, { a: 'old', b: 'old', c: 'new' }]);
});
