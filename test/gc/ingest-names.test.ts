import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openMemoryEngine } from '../../src/engine/memory/engine.js';
import { ingestKey } from '../../src/engine/schema/keys.js';
import { metadataIndexer } from '../../src/gc/references.js';
import { IngestNames } from '../../src/gc/sweep/sweep.js';
import { createGraph } from '../../src/graph/carriers.js';

// 64 are read in a turn: the last of a turn, the first of the next one, and one of the third.
for (const place of [0, 63, 64, 127, 128, 150]) {
  test(`given an imported ingest as number ${place} of 151, when names are read, then its odd name and all others are known`, async () => {
    await using engine = await openMemoryEngine({ indexer: metadataIndexer, graph: createGraph() });
    const odd = 'ref-of-another-program';
    const refs = Array.from({ length: 151 }, (_, n) => `r${String(n).padStart(3, '0')}`);
    const nameOf = (ref: string, n: number): string => (n === place ? odd : `ns/${n}/${ref}`);
    await engine.update((tx) => {
      for (const [n, ref] of refs.entries()) tx.put(ingestKey('ns', ref), { ref: nameOf(ref, n) });
    });
    const names = await IngestNames.read(engine);
    for (const [n, ref] of refs.entries()) assert.ok(names.isNamed(nameOf(ref, n)), `number ${n}`);
    assert.ok(!names.isNamed(`ns/${place}/${refs[place]}`));
    assert.ok(!names.isNamed('another'));
  });
}
