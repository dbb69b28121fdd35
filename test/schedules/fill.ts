/**
 * What a store has when a schedule begins: records and backend items written outright, much of it garbage, in
 * chains, with leases, expiries, back references and conditions at random.
 */
import type { Engine, Key, Transaction } from '../../src/engine/contract.js';
import {
  blobKey,
  containerKey,
  imageKey,
  ingestKey,
  leaseKey,
  namespaceKey,
  Relation,
  sandboxKey,
  snapshotKey,
  snapshotterKey,
} from '../../src/engine/schema/keys.js';
import type { FakeContent, FakeSnapshotter } from '../support/fake-backends.js';
import type { Random } from '../support/random.js';
import * as names from './names.js';

const times = { createdat: 1n, updatedat: 1n };

export interface Filling {
  readonly engine: Engine;
  readonly content: FakeContent;
  readonly snapshotters: ReadonlyMap<string, FakeSnapshotter>;
  readonly random: Random;
}

export async function fill(filling: Filling): Promise<void> {
  const { engine, random } = filling;
  const put = (tx: Transaction): void => {
    for (const ns of names.namespaces) {
      // Half of the schedules have all that matters in one namespace, so that writers meet more often.
      const density = ns === 'ns1' ? 0.8 : random.pick([0.1, 0.5]);
      new Filler(filling, tx, ns, density).run();
    }
  };
  await engine.update(put, { durability: 'visible' });
}

class Filler {
  readonly #filling: Filling;
  readonly #random: Random;
  readonly #tx: Transaction;
  readonly #ns: string;
  readonly #density: number;

  constructor(filling: Filling, tx: Transaction, ns: string, density: number) {
    this.#filling = filling;
    this.#random = filling.random;
    this.#tx = tx;
    this.#ns = ns;
    this.#density = density;
  }

  run(): void {
    this.#tx.put(namespaceKey(this.#ns), {});
    this.#each(names.digests, (digest) => this.#blob(digest));
    for (const snapshotter of names.snapshotters) {
      // So that no name the store hands out later is one that was written here.
      for (let i = 0; i < names.snapshots.length; i++) this.#tx.next(snapshotterKey(this.#ns, snapshotter));
      this.#tx.put(snapshotterKey(this.#ns, snapshotter), {});
      names.snapshots.forEach((name, i) => {
        if (this.#random.chance(this.#density)) this.#snapshot(snapshotter, name, i);
      });
    }
    this.#each(names.images, (name) => this.#image(name));
    this.#each(names.refs, (ref) => this.#ingest(ref));
    this.#each(names.leases, (id) => this.#lease(id));
    this.#each(names.containers, (id) => this.#container(id), 0.4);
    this.#each(names.sandboxes, (id) => this.#sandbox(id), 0.4);
  }

  #each(all: readonly string[], put: (name: string) => void, share = 1): void {
    for (const name of all) if (this.#random.chance(this.#density * share)) put(name);
  }

  #blob(digest: string): void {
    const bytes = Buffer.from(names.textOf(digest));
    this.#filling.content.put(digest, bytes);
    const labels = names.labels(this.#random, 2);
    this.#tx.put(blobKey(this.#ns, digest), { ...times, size: bytes.length, labels });
  }

  #snapshot(snapshotter: string, name: string, i: number): void {
    const backendName = `${this.#ns}/${i + 1}/${name}`;
    const record = snapshotKey(this.#ns, snapshotter, name);
    const before = names.snapshots[i - 1] ?? '';
    const parentKey = before === '' ? undefined : snapshotKey(this.#ns, snapshotter, before);
    const hasParent = parentKey !== undefined && this.#tx.has(parentKey) && this.#random.chance(0.6);
    const fields = { ...times, name: backendName, labels: names.labels(this.#random, 1) };
    this.#tx.put(record, hasParent ? { ...fields, parent: before } : fields);
    if (hasParent) this.#tx.link(parentKey, Relation.children, record);
    const backend = this.#filling.snapshotters.get(snapshotter);
    backend?.add(backendName, hasParent ? `${this.#ns}/${i}/${before}` : '');
  }

  #image(name: string): void {
    const target = { digest: this.#random.pick(names.digests), mediatype: 'application/x', size: 1 };
    const labels = { ...names.labels(this.#random, 1), ...names.expiry(this.#random) };
    this.#tx.put(imageKey(this.#ns, name), { ...times, target, labels });
  }

  #ingest(ref: string): void {
    const backendRef = `${this.#ns}/1/${ref}`;
    const expected = this.#random.chance(0.4) ? this.#random.pick(names.digests) : undefined;
    if (expected === undefined) this.#filling.content.ingests.add(backendRef);
    const expireat = this.#random.pick([1n, 1n << 62n, undefined]);
    this.#tx.put(ingestKey(this.#ns, ref), {
      ref: backendRef,
      ...(expected !== undefined && { expected }),
      ...(expireat !== undefined && { expireat }),
    });
  }

  #lease(id: string): void {
    const flat = this.#random.chance(0.3);
    const labels = { ...names.expiry(this.#random), ...(flat && names.flat) };
    const record = leaseKey(this.#ns, id);
    this.#tx.put(record, { createdat: 1n, labels });
    for (let i = this.#random.int(3); i > 0; i--) {
      const target = this.#resource();
      const relation = flat && !target.startsWith('ingests') ? Relation.holdsFlat : Relation.holds;
      this.#tx.link(record, relation, target);
    }
  }

  #resource(): Key {
    const random = this.#random;
    switch (random.int(5)) {
      case 0:
        return imageKey(this.#ns, random.pick(names.images));
      case 1:
        return ingestKey(this.#ns, random.pick(names.refs));
      case 2:
        return blobKey(this.#ns, random.pick(names.digests));
      default:
        return snapshotKey(this.#ns, random.pick(names.snapshotters), random.pick(names.snapshots));
    }
  }

  #container(id: string): void {
    this.#tx.put(containerKey(this.#ns, id), {
      ...times,
      image: '',
      sandboxid: '',
      runtime: { name: 'r' },
      spec: { typeUrl: 't', value: Buffer.alloc(0) },
      snapshotter: this.#random.pick(names.snapshotters),
      snapshotKey: this.#random.pick(names.snapshots),
      labels: names.labels(this.#random, 1),
    });
  }

  #sandbox(id: string): void {
    const fields = { ...times, sandboxer: '', runtime: { name: 'r' } };
    this.#tx.put(sandboxKey(this.#ns, id), { ...fields, labels: names.labels(this.#random, 2) });
  }
}
