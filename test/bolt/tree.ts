/** A bucket as the real bbolt's program prints it. */
import assert from 'node:assert/strict';
import type { Bucket } from '../../src/bolt/bucket.js';
import type { Tree } from './program.js';

/** No file of these tests is as deep as `depth` may become. */
export function treeOf(bucket: Bucket, depth = 0): Tree {
  const tree: Tree = {};
  assert.ok(depth < 1000);
  bucket.each((entry) => {
    const { key, text } = entry;
    Object.defineProperty(tree, key, {
      value: entry.bucket === undefined ? text : treeOf(entry.bucket, depth + 1),
      enumerable: true,
    });
  });
  return tree;
}
