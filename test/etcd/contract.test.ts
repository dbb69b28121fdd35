/** The engine contract, unchanged, over a real etcd; with a mirror in memory and one on LMDB. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Engine, Indexer } from '../../src/engine/contract.js';
import { openEtcdEngine } from '../../src/engine/etcd/open.js';
import { describeEngine, type EngineUnderTest } from '../../src/engine/suite.js';
import { createGraph } from '../../src/graph/carriers.js';
import { cluster } from './one-member.js';

/** Two names: the embedded engine of the mirror. */
function opener(kind: 'memory' | 'lmdb') {
  return async (indexer: Indexer): Promise<EngineUnderTest> => {
    const dir = kind === 'lmdb' ? await mkdtemp(join(tmpdir(), 'ebbtide-mirror-')) : undefined;
    const etcd = cluster.config();
    const open = () =>
      openEtcdEngine({
        indexer,
        graph: createGraph(),
        etcd,
        ...(dir !== undefined && { mirrorDir: join(dir, 'mirror') }),
      });
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
        if (dir !== undefined) await rm(dir, { recursive: true });
      },
    };
  };
}

describeEngine('etcd, mirror in memory', opener('memory'));
describeEngine('etcd, mirror on LMDB', opener('lmdb'));
