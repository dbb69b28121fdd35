/**
 * Fills a tree for the benchmark: groups of five records (an image, its manifest, config and two layers); the image is
 * left out of the groups that are to be garbage. Written to etcd directly, as another host would have left it.
 */
import { createHash } from 'node:crypto';
import type { DB } from '../../src/db.js';
import type { Key, Value } from '../../src/engine/contract.js';
import type { EtcdClient, Op } from '../../src/engine/etcd/client/client.js';
import { Layout } from '../../src/engine/etcd/format/layout.js';
import { valueToText } from '../../src/engine/etcd/format/values.js';
import { blobKey, imageKey, metaKey, namespaceKey } from '../../src/engine/schema/keys.js';

const NS = 'bench';
const GROUP = 5;
const AT = 1_700_000_000_000_000_000n;
const OPS = 120;
const AT_ONCE = 16;

/** How many of the records are garbage. */
export function recordsOf(count: number, share: number): { groups: number; garbage: number } {
  const groups = count / GROUP;
  const every = share === 0 ? Number.POSITIVE_INFINITY : Math.round(1 / share);
  return { groups, garbage: share === 0 ? 0 : Math.ceil(groups / every) * (GROUP - 1) };
}

function* records(count: number, share: number): Generator<[Key, Value]> {
  yield [metaKey('version'), { version: 4 }];
  yield [namespaceKey(NS), {}];
  const every = share === 0 ? Number.POSITIVE_INFINITY : Math.round(1 / share);
  const digest = (text: string): string => `sha256:${createHash('sha256').update(text).digest('hex')}`;
  const times = { createdat: AT, updatedat: AT };
  for (let group = 0; group < count / GROUP; group++) {
    const [manifest, ...parts] = Array.from({ length: GROUP - 1 }, (_, i) => digest(`${group} ${i}`));
    const labels = Object.fromEntries(parts.map((part, i) => [`containerd.io/gc.ref.content.${i}`, part]));
    yield [blobKey(NS, manifest!), { ...times, size: 1000, labels }];
    for (const part of parts) yield [blobKey(NS, part), { ...times, size: 100_000 }];
    if (group % every === 0) continue;
    yield [
      imageKey(NS, `registry.example/library/image-${group}:latest`),
      {
        ...times,
        target: { digest: manifest!, mediatype: 'application/vnd.oci.image.manifest.v1+json', size: 1000 },
      },
    ];
  }
}

export async function fillEtcd(client: EtcdClient, count: number, share: number): Promise<void> {
  const layout = new Layout('bench');
  const under = new Set<Promise<unknown>>();
  let ops: Op[] = [];
  const send = async (): Promise<void> => {
    const txn = client.txn([], ops).finally(() => under.delete(txn));
    ops = [];
    under.add(txn);
    if (under.size >= AT_ONCE) await Promise.race(under);
  };
  for (const [key, value] of records(count, share)) {
    ops.push({ put: layout.record(key), value: valueToText(key, value) });
    if (ops.length === OPS) await send();
  }
  if (ops.length > 0) await send();
  await Promise.all(under);
  client.close();
}

export async function fillEmbedded(db: DB, count: number, share: number): Promise<void> {
  let batch: [Key, Value][] = [];
  const put = (): Promise<void> => {
    const now = batch;
    batch = [];
    return db.engine.update(
      (tx) => {
        for (const [key, value] of now) tx.put(key, value);
      },
      { durability: 'visible' },
    );
  };
  for (const record of records(count, share)) {
    batch.push(record);
    if (batch.length === 2000) await put();
  }
  await put();
  await db.engine.flush();
}
