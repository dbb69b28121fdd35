/** The engine contract over the engines of this package, with either graph core. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Engine, Indexer } from '../../src/engine/contract.js';
import { openLmdbEngine } from '../../src/engine/lmdb/engine.js';
import { openMemoryEngine } from '../../src/engine/memory/engine.js';
import { describeEngine, type EngineUnderTest } from '../../src/engine/suite.js';
import { createGraph } from '../../src/graph/carriers.js';

async function openMemory(indexer: Indexer): Promise<EngineUnderTest> {
  const engine = await openMemoryEngine({ indexer, graph: createGraph() });
  return { engine, dispose: () => engine.close() };
}

async function openLmdb(indexer: Indexer): Promise<EngineUnderTest> {
  const dir = await mkdtemp(join(tmpdir(), 'ebbtide-engine-'));
  const open = () => openLmdbEngine(dir, { indexer, graph: createGraph() });
  let engine: Engine = await open();
  return {
    engine,
    reopen: async () => {
      await engine.close();
      engine = await open();
      return engine;
    },
    dispose: async () => {
      await engine.close();
      await rm(dir, { recursive: true });
    },
  };
}

describeEngine('memory', openMemory);
describeEngine('lmdb', openLmdb);
