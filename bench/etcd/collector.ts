/**
 * The collecting host as a process of its own, as hosts are: what it computes must not count as delay of the other
 * host's writers. Beside it an embedded store with the same records, for comparison. Messages of
 * main.ts say what to do: `collect` and `idle`, each ends with one message.
 */

import type { EtcdConfig } from '../../src/engine/etcd/client/options.js';
import { openDB } from '../../src/open.js';
import { fillEmbedded } from './fill.js';
import { openBenchHost } from './host.js';

export interface CollectorOptions {
  etcd: EtcdConfig;
  root: string;
  embeddedRoot: string;
  records: number;
  garbage: number;
}

export interface Collected {
  ms: number;
  removed: number;
  slices: number;
}

export interface Idle {
  etcd: number[];
  embedded: number[];
}

const IDLE_RUNS = 7;

async function main(): Promise<void> {
  const options = JSON.parse(process.argv[2] ?? '') as CollectorOptions;
  const host = await openBenchHost(options.etcd, options.root);
  const send = (message: object): void => void process.send?.(message);
  const timed = async (run: () => Promise<unknown>): Promise<number> => {
    const start = performance.now();
    await run();
    return performance.now() - start;
  };
  process.on('message', async (word) => {
    if (word === 'collect') {
      const start = performance.now();
      const { removed, slices } = await host.garbageCollect();
      send({ ms: performance.now() - start, removed: removed.content ?? 0, slices } satisfies Collected);
    } else if (word === 'idle') {
      const embedded = await openDB({ root: options.embeddedRoot, snapshotters: [], log: () => {} });
      await fillEmbedded(embedded, options.records, options.garbage);
      await embedded.garbageCollect();
      const idle: Idle = { etcd: [], embedded: [] };
      for (let i = 0; i < IDLE_RUNS; i++) {
        idle.etcd.push(await timed(() => host.garbageCollect()));
        idle.embedded.push(await timed(() => embedded.garbageCollect()));
      }
      await embedded.close();
      send(idle);
    } else {
      await host.close();
      process.exit(0);
    }
  });
  send({ ready: true });
}

await main();
