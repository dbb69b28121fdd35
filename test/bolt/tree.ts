/** What a file has, to be compared with what the real bbolt's program says and does. */
import assert from 'node:assert/strict';
import { type Bucket, rootBucket } from '../../src/bolt/bucket.js';
import type { BoltSnapshot } from '../../src/bolt/snapshot.js';
import type { Tree } from './program.js';

/** A bucket as that program prints it. No file of these tests is as deep as `depth` may become. */
export function treeOf(bucket: Bucket, depth = 0): Tree {
  const tree: Tree = {};
  assert.ok(depth < 1000);
  bucket.each((entry) => {
    const { key, text } = entry;
    Object.defineProperty(tree, key, {
      value: entry.bucket === undefined ? text : treeOf(entry.bucket, depth + 1),
      enumerable: true,
      configurable: true,
    });
  });
  return tree;
}

/** The numbers that the counters of a file have: one, unless it is of two moments. */
export function numbersIn(snapshot: BoltSnapshot): Set<string> {
  const numbers = new Set<string>();
  rootBucket(snapshot).each((bucket) =>
    bucket.bucket?.each((entry) => numbers.add(entry.text.slice(0, entry.text.indexOf(' ')))),
  );
  return numbers;
}
