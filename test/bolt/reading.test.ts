/**
 * Readings beside commits, each step chosen by a seed: bbolt's own file after each of many commits, and between two of them a file in
 * which some pages of the next commit are written already, and its meta page is not, or half of it.
 * EBBTIDE_BOLT_READINGS (default 600) and EBBTIDE_BOLT_SEED.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { before, test } from 'node:test';
import { rootBucket } from '../../src/bolt/bucket.js';
import type { BoltSource } from '../../src/bolt/file.js';
import { BoltDamage, type Meta, parseMeta } from '../../src/bolt/format.js';
import { type BoltSnapshot, readOnce } from '../../src/bolt/snapshot.js';
import { Random } from '../support/random.js';
import { tempDir } from '../support/temp.js';
import { makeImages, missing } from './program.js';
import { treeOf } from './tree.js';

const skip = missing ?? false;
const readings = Number(process.env.EBBTIDE_BOLT_READINGS ?? 600);
const firstSeed = Number(process.env.EBBTIDE_BOLT_SEED ?? 1);
const PAGE = 1024;
const COMMITS = 120;

let images: Buffer[] = [];
/** What the file has, by the transaction. */
const trees = new Map<bigint, string>();

const textOf = (snapshot: BoltSnapshot): string => JSON.stringify(treeOf(rootBucket(snapshot)));

/** A file that changes while it is looked at. */
class Changing implements BoltSource {
  readonly path = 'file.db';
  readonly #random: Random;
  /** One step of the writer in so many calls. */
  readonly #pace: number;
  readonly #bytes: Buffer;
  #length: number;
  #commit: number;
  /** What is still to write of the next commit. */
  #writes: { at: number; bytes: Buffer }[] = [];

  constructor(random: Random, commit: number, pace: number) {
    this.#random = random;
    this.#commit = commit;
    this.#pace = pace;
    const longest = Math.max(...images.map(({ length }) => length));
    this.#bytes = Buffer.concat([images[commit]!], longest);
    this.#length = images[commit]!.length;
  }

  #write(): void {
    for (let steps = this.#random.int(this.#pace) === 0 ? 1 + this.#random.int(4) : 0; steps > 0; steps--) {
      this.#step();
    }
  }

  #step(): void {
    if (this.#writes.length === 0) this.#begin();
    const next = this.#writes.shift();
    next?.bytes.copy(this.#bytes, next.at);
  }

  /** Its pages in any order, then its meta page, in two parts. */
  #begin(): void {
    const [from, to] = [images[this.#commit]!, images[this.#commit + 1]];
    if (to === undefined) return;
    this.#commit++;
    this.#length = to.length;
    for (let at = 2 * PAGE; at < to.length; at += PAGE) {
      const bytes = to.subarray(at, at + PAGE);
      if (bytes.equals(from.subarray(at, at + PAGE))) continue;
      this.#writes.splice(this.#random.int(this.#writes.length + 1), 0, { at, bytes });
    }
    for (const at of [0, PAGE]) {
      const bytes = to.subarray(at, at + PAGE);
      if (bytes.equals(from.subarray(at, at + PAGE))) continue;
      this.#writes.push({ at, bytes: bytes.subarray(0, 66) }, { at, bytes });
    }
  }

  length(): number {
    return this.#length;
  }

  read(bytes: Buffer, at: number): number {
    // Many, while a commit is followed; never where the file is to stand still.
    const isHurried = bytes.length === PAGE && this.#pace < 1000 && this.#random.int(40) === 0;
    for (let n = isHurried ? 40 : 0; n > 0; n--) this.#step();
    for (let done = 0; done < bytes.length; done += PAGE) {
      this.#write();
      bytes.fill(0, done, done + PAGE);
      this.#bytes.copy(bytes, done, at + done, Math.min(at + done + PAGE, at + bytes.length));
    }
    return bytes.length;
  }

  async readBeside(bytes: Buffer, at: number): Promise<number> {
    for (let done = 0; done < bytes.length; done += 8 * PAGE) {
      this.read(bytes.subarray(done, done + 8 * PAGE), at + done);
      if (this.#random.int(4) === 0) await null;
    }
    return bytes.length;
  }

  newest(): Meta {
    const metas = [0, PAGE].map((at) => {
      this.#write();
      return parseMeta(this.#bytes, at + 16);
    });
    const [newest] = metas
      .filter((meta) => meta !== undefined)
      .sort((a, b) => (a.transaction < b.transaction ? 1 : -1));
    // Both were being written.
    return newest ?? this.newest();
  }
}

before(async (t) => {
  if (missing !== undefined) return;
  const dir = await tempDir(t as never);
  makeImages(dir, PAGE, COMMITS, 1);
  images = Array.from({ length: COMMITS + 1 }, (_, n) => readFileSync(join(dir, `${n}`)));
  for (const [n] of images.entries()) {
    const snapshot = await readOnce(new Changing(new Random(1), n, Number.MAX_SAFE_INTEGER));
    trees.set(snapshot!.meta.transaction, textOf(snapshot!));
  }
});

function isOfOneMoment(snapshot: BoltSnapshot): void {
  const { transaction } = snapshot.meta;
  assert.ok(
    textOf(snapshot) === trees.get(transaction),
    `what was read is not of transaction ${transaction}`,
  );
}

test(`given ${readings} readings while commits come, then each is of one transaction, or says that it was overtaken`, {
  skip,
}, async (t) => {
  const seen = { commits: 0, read: 0, overtaken: 0 };
  for (let seed = firstSeed; seed < firstSeed + readings; seed++) {
    const random = new Random(seed);
    const source = new Changing(random, random.int(COMMITS), [10, 30, 60, 120, 240][random.int(5)]!);
    const options = {
      lanes: [1, 8][random.int(2)]!,
      chunkBytes: [8, 64, 512][random.int(3)]! * PAGE,
      followedMax: [0, 256][random.int(2)]!,
    };
    const snapshot = await readOnce(source, 0, options);
    if (snapshot === undefined) {
      seen.overtaken++;
      continue;
    }
    try {
      isOfOneMoment(snapshot);
    } catch (error) {
      throw new Error(`seed ${seed}`, { cause: error });
    }
    seen.read++;
    seen.commits += snapshot.commits;
  }
  t.diagnostic(JSON.stringify(seen));
  for (const count of [seen.read, seen.overtaken, seen.commits]) assert.ok(count > readings / 20);
});

test('given the same, when the transaction is not looked at, then moments are mixed', { skip }, async (t) => {
  let mixed = 0;
  for (let seed = firstSeed; seed < firstSeed + 50; seed++) {
    const source = new Changing(new Random(seed), 10, 10);
    const meta = source.newest();
    source.newest = () => meta;
    const snapshot = await readOnce(source);
    try {
      isOfOneMoment(snapshot!);
    } catch (error) {
      if (!(error instanceof BoltDamage || error instanceof assert.AssertionError)) throw error;
      mixed++;
    }
  }
  t.diagnostic(`${mixed} of 50 are mixed`);
  assert.ok(mixed > 5);
});
