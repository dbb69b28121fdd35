/** Hosts of the benchmark, and what each figure needs of them. Called by main.ts and collector.ts. */
import type { DB } from '../../src/db.js';
import type { EtcdConfig } from '../../src/engine/etcd/client/options.js';
import { openDB } from '../../src/open.js';

export const ctx = { namespace: 'bench' };

/** A host that may collect; patient, since etcd is given large pages to read on a busy machine. */
export function openBenchHost(etcd: EtcdConfig, root: string): Promise<DB> {
  const hostId = `h${root.replace(/[^A-Za-z0-9]+/g, '.')}`;
  return openDB({
    root,
    snapshotters: [],
    enableEtcdGC: true,
    etcd: { ...etcd, hostId, requestTimeoutMs: 20_000, operationTimeoutMs: 120_000 },
    log: () => {},
  });
}

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export function quantile(numbers: readonly number[], q: number): number {
  const all = [...numbers].sort((a, b) => a - b);
  return all[Math.min(all.length - 1, Math.floor(q * all.length))] ?? 0;
}
