/** The WebAssembly that is checked in is what its sources give, bit for bit. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { wasmPath } from '../../src/graph/wasm-graph.js';
import { missingPackages } from '../support/debian.js';
import { tempDir } from '../support/temp.js';

const build = (argument: string): { status: number | null; stdout: string; stderr: string } =>
  spawnSync(process.execPath, [join(dirname(wasmPath()), 'build.mjs'), argument], { encoding: 'utf8' });

const skip = missingPackages(build('--packages').stdout.trim().split(' ')) ?? false;
if (skip) console.log(`the WebAssembly is not built again: ${skip}`);

test('given the sources, when they are built, then the bytes are those that are checked in', {
  skip,
}, async (t) => {
  const out = join(await tempDir(t), 'core.wasm');
  const { status, stderr } = build(out);
  assert.equal(status, 0, stderr);
  const [built, kept] = [readFileSync(out), readFileSync(wasmPath())];
  const remedy = 'run node native/wasm/build.mjs and check its file in';
  assert.ok(
    built.equals(kept),
    `${built.length} bytes are built, ${kept.length} others are there: ${remedy}`,
  );
});
