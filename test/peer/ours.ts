/** Loads a store here and collects it: what the peer's side does in main.go. */

import type { Engine, Transaction } from '../../src/engine/contract.js';
import {
  blobKey,
  components,
  ingestKey,
  namespaceKey,
  Relation,
  snapshotKey,
} from '../../src/engine/schema/keys.js';
import { compactMap } from '../../src/model/labels.js';
import { now } from '../../src/model/time.js';
import { newDB } from '../../src/open.js';
import { withId, withLabels } from '../../src/stores/leases.js';
import { FakeContent, FakeSnapshotter } from '../support/fake-backends.js';
import type { PeerRecord } from './stores.js';

/** Blobs, snapshots and ingests, for which the stores want bytes in a backend. */
function putRecord(tx: Transaction, r: PeerRecord): void {
  const { namespace, name } = r;
  const labels = compactMap(r.labels);
  const fields = { createdat: now(), updatedat: now(), ...(labels && { labels }) };
  tx.put(namespaceKey(namespace), {});
  if (r.kind === 'blob') tx.put(blobKey(namespace, name), { ...fields, size: 1 });
  if (r.kind === 'snapshot') {
    const record = snapshotKey(namespace, r.snapshotter ?? '', name);
    const parent = r.parent ?? '';
    tx.put(record, { ...fields, name: `${namespace}/1/${name}`, ...(parent !== '' && { parent }) });
    const parentKey = parent === '' ? undefined : snapshotKey(namespace, r.snapshotter ?? '', parent);
    if (parentKey !== undefined && tx.has(parentKey)) tx.link(parentKey, Relation.children, record);
  }
  if (r.kind === 'ingest') {
    tx.put(ingestKey(namespace, name), {
      ref: `${namespace}/1/${name}`,
      ...(r.expected !== undefined && { expected: r.expected }),
      ...(r.expiresIn !== undefined && { expireat: now() + BigInt(r.expiresIn) }),
    });
  }
}

const words: Readonly<Record<string, string>> = {
  images: 'image',
  containers: 'container',
  leases: 'lease',
  blobs: 'blob',
  ingests: 'ingest',
  snapshots: 'snapshot',
};

/** Every record as `kind|namespace|name`. */
function left(engine: Engine): string[] {
  const all: string[] = [];
  for (const [collection, word] of Object.entries(words)) {
    for (const [key] of engine.scan(collection)) {
      const [, namespace, ...name] = components(key);
      all.push(`${word}|${namespace}|${name.join('/')}`);
    }
  }
  return all;
}

/** What is left of the records after one collection. The engine is closed. */
export async function collectHere(engine: Engine, records: readonly PeerRecord[]): Promise<string[]> {
  const backends = { native: new FakeSnapshotter(), 'native.0': new FakeSnapshotter() };
  await using db = await newDB(undefined, engine, new FakeContent(), backends, { log: () => {} });
  await db.update(async (tx) => {
    for (const r of records) {
      const { name, labels } = r;
      const ctx = { namespace: r.namespace, tx };
      if (r.kind === 'image') {
        const target = { mediaType: 'application/x', digest: r.target ?? '', size: 1 };
        await db.images.create(ctx, { name, target, labels });
      } else if (r.kind === 'container') {
        const { snapshotter, snapshotKey: key } = r;
        const spec = { typeUrl: 'spec', value: new Uint8Array([1]) };
        const runtime = { name: 'runtime' };
        await db.containers.create(ctx, { id: name, labels, runtime, spec, snapshotter, snapshotKey: key });
      } else if (r.kind === 'lease') {
        const lease = await db.leases.create(ctx, withId(name), withLabels(labels));
        for (const resource of r.resources ?? []) await db.leases.addResource(ctx, lease, resource);
      } else putRecord(tx, r);
    }
  });
  await db.garbageCollect();
  return left(engine);
}
