/**
 * Run by tests as a process of its own: `once` tries to open the store, `write` writes until it is killed; `exit`, `end`
 * and `throw` write much, print how many records were acknowledged, and come to their end without closing the store.
 */
import { writeSync } from 'node:fs';
import type { CoreEngine } from '../../src/engine/core/engine.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { key } from '../../src/engine/schema/keys.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { isKind } from '../../src/errors.js';
import { createGraph } from '../../src/graph/carriers.js';

/** Enough to keep the thread that writes the tree busy. */
async function writeMuch(engine: CoreEngine): Promise<void> {
  const written: Promise<void>[] = [];
  for (let i = 0; i < 20_000; i += 100) {
    written.push(
      engine.update((tx) => {
        for (let k = i; k < i + 100; k++) {
          tx.put(key('images', 'ns', `${k}`), { size: k, refs: { label: key('blobs', 'ns', `b${k}`) } });
        }
      }),
    );
  }
  await Promise.all(written);
  writeSync(1, '20000\n');
}

const [dir, mode] = process.argv.slice(2);
if (dir === undefined) throw new Error('which directory?');
try {
  const engine = await openLmdbEngine(dir, { indexer: suiteIndexer, graph: createGraph() });
  if (mode === 'write') {
    const start = Date.now();
    const write = async (caller: number): Promise<never> => {
      for (let i = 0; ; i++) {
        const name = `${start}-${caller}-${i}`;
        await engine.update((tx) => {
          tx.put(key('images', 'ns', name), { size: i, refs: { label: key('blobs', 'ns', 'b000001') } });
          if (i > 0) tx.put(key('meta', `last-${caller}`), { size: i });
        });
        process.stdout.write(`${name} ${i}\n`);
      }
    };
    await Promise.all([1, 2, 3, 4].map(write));
  }
  if (mode === 'exit' || mode === 'end' || mode === 'throw') {
    await writeMuch(engine);
    if (mode === 'exit') process.exit(0);
    if (mode === 'throw') {
      setImmediate(() => {
        throw new Error('no caller catches this');
      });
    }
  } else await engine.close();
} catch (error) {
  process.exitCode = isKind(error, 'Unavailable') ? 3 : 1;
}
