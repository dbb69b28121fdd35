/**
 * Writes to a store without a pause, until it is killed: `hard-writer DIR ACKED [blind|restarts]`. ACKED is a file with the
 * number of the newest commit that was acknowledged, 8 bytes. What a commit writes: slots.ts. Blind: it does not look for
 * readers. Restarts: it closes the store and opens it again all the time.
 */
import { openSync, writeSync } from 'node:fs';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { suiteIndexer } from '../../src/engine/suite.js';
import { createGraph } from '../../src/graph/carriers.js';
import { Readers } from '../../src/system/lmdb/readers.js';
import { newestKey, recordsOf } from './slots.js';

const AT_ONCE = 16;

const [dir, ackedPath, mode] = process.argv.slice(2);
if (dir === undefined || ackedPath === undefined) throw new Error('which directory, and which file?');
if (mode === 'blind') Readers.prototype.look = () => undefined;
const acked = openSync(ackedPath, 'w');
const bytes = Buffer.alloc(8);
const open = () => openLmdbEngine(dir, { indexer: suiteIndexer, graph: createGraph() });
let engine = await open();
process.stdout.write('open\n');
for (let commit = 0; ; ) {
  const written: Promise<void>[] = [];
  for (let i = 0; i < AT_ONCE; i++) {
    const number = ++commit;
    written.push(
      engine.update((tx) => {
        for (const [key, value] of recordsOf(number)) tx.put(key, value);
        tx.put(newestKey, { size: number });
      }),
    );
  }
  await Promise.all(written);
  bytes.writeBigUInt64LE(BigInt(commit));
  writeSync(acked, bytes, 0, 8, 0);
  if (mode !== 'restarts' || commit % (5 * AT_ONCE) > 0) continue;
  await engine.close();
  engine = await open();
}
