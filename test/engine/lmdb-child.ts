/** Run by lmdb.test.ts as a process of its own: `once` tries to open the store, `write` writes until it is killed. */
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { key } from '../../src/engine/schema/keys.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { isKind } from '../../src/errors.js';
import { createGraph } from '../../src/gc/graph.js';

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
  await engine.close();
} catch (error) {
  process.exitCode = isKind(error, 'Unavailable') ? 3 : 1;
}
