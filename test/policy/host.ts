/**
 * A real store filled by a seed: images that share layers and unpacked snapshots over two namespaces, several names of one
 * image, leases, containers, references in circles. The same seed fills two stores alike, but for the times.
 */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { DB } from '../../src/db.js';
import { digestOf } from '../../src/model/digest.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { withId, withLabel } from '../../src/stores/leases.js';
import { gc } from '../support/gc-world.js';
import { Random } from '../support/random.js';

export const namespaces = ['one', 'two'] as const;

const LAYERS = 10;

/** What a story does with a store: builds it, and removes roots as a client would. */
export class Host {
  readonly #db: DB;
  readonly #random: Random;
  /** Digest by namespace and layer, and the snapshots that are made, by namespace and chain. */
  readonly #chains = new Set<string>();

  constructor(db: DB, seed: number) {
    this.#db = db;
    this.#random = new Random(seed);
  }

  async blob(
    namespace: string,
    name: string,
    size: number,
    labels: Record<string, string> = {},
  ): Promise<string> {
    const bytes = Buffer.alloc(size, name);
    const digest = digestOf(bytes);
    await writeBlob(this.#db.content, { namespace }, `${name}`, bytes, { digest, size }, { labels }).catch(
      async () => {
        // Another image has it; labels are added.
        if (Object.keys(labels).length > 0)
          await this.#db.content.update(
            { namespace },
            { digest, labels },
            ...Object.keys(labels).map((l) => `labels.${l}`),
          );
      },
    );
    return digest;
  }

  /** A chain of snapshots, as unpacking makes one; the name of the topmost. */
  async chain(namespace: string, layers: readonly number[]): Promise<string> {
    const native = this.#db.snapshotter('native');
    if (native === undefined) throw new Error('no native snapshotter');
    const ctx = { namespace };
    let parent = '';
    for (const [n, layer] of layers.entries()) {
      const name = `chain-${layers.slice(0, n + 1).join('-')}`;
      if (!this.#chains.has(`${namespace} ${name}`)) {
        this.#chains.add(`${namespace} ${name}`);
        const [mount] = await native.prepare(ctx, `${name}-active`, parent, {
          labels: { [gc('root')]: 'x' },
        });
        await writeFile(join(mount?.source ?? '', `layer-${layer}`), Buffer.alloc(1000 * (layer + 1), 1));
        await native.commit(ctx, name, `${name}-active`);
      }
      parent = name;
    }
    return parent;
  }

  /** A manifest with a config and layers; unpacked or not. */
  async manifest(
    namespace: string,
    name: string,
    layers: readonly number[],
    unpacked: boolean,
  ): Promise<string> {
    const config = await this.blob(
      namespace,
      `config-${name}`,
      200 + this.#random.int(300),
      unpacked ? { [gc('ref.snapshot.native')]: await this.chain(namespace, layers) } : {},
    );
    const labels: Record<string, string> = { [gc('ref.content.config')]: config };
    for (const [n, layer] of layers.entries()) {
      labels[gc(`ref.content.l.${n}`)] = await this.blob(namespace, `layer-${layer}`, 2000 + 500 * layer);
    }
    return this.blob(namespace, `manifest-${name}`, 500, labels);
  }

  async image(
    namespace: string,
    name: string,
    digest: string,
    labels: Record<string, string> = {},
  ): Promise<void> {
    await this.#db.images.create(
      { namespace },
      { name, labels, target: { digest, mediaType: 'm', size: 500 } },
    );
  }

  /** A chain of layers that begins as others do. */
  #layers(): number[] {
    const base = this.#random.int(3);
    const own = Array.from({ length: this.#random.int(3) }, () => 3 + this.#random.int(LAYERS - 3));
    return [...new Set([base, ...own])];
  }

  async fill(images: number): Promise<void> {
    const random = this.#random;
    const db = this.#db;
    for (let n = 0; n < images; n++) {
      const namespace = random.pick(namespaces);
      const ctx = { namespace };
      const layers = this.#layers();
      const unpacked = random.chance(0.4);
      const digest = await this.manifest(namespace, `${n}`, layers, unpacked);
      await this.image(namespace, `example.com/app${n % 3}:v${n}`, digest);
      if (random.chance(0.2)) await this.image(namespace, `example.com/again:v${n}`, digest);
      if (random.chance(0.15))
        await this.image(namespace, `pinned:${n}`, digest, { 'io.cri-containerd.pinned': 'pinned' });
      if (random.chance(0.15)) {
        const circle = { [gc('ref.content.circle')]: digest };
        await this.blob(namespace, `config-${n}-more`, 100, circle);
        await db.content.update(
          ctx,
          { digest, labels: { [gc('ref.content.more')]: digestOf(Buffer.alloc(100, `config-${n}-more`)) } },
          `labels.${gc('ref.content.more')}`,
        );
      }
      if (random.chance(0.15)) {
        const container = { runtime: { name: 'runc' }, spec: { typeUrl: '', value: Buffer.from('{}') } };
        await db.containers.create(ctx, {
          ...container,
          id: `c${n}`,
          image: `example.com/app${n % 3}:v${n}`,
        });
      }
      if (random.chance(0.2)) await this.#lease(namespace, n, layers, digest);
    }
    await this.unpacked();
  }

  /** Snapshots were kept by a label until here, as an unpacker keeps them by a lease. */
  async unpacked(): Promise<void> {
    const native = this.#db.snapshotter('native');
    for (const name of this.#chains) {
      const [namespace = '', key = ''] = name.split(' ');
      await native?.update({ namespace }, { name: key, labels: {} }, `labels.${gc('root')}`);
    }
  }

  async #lease(namespace: string, n: number, layers: readonly number[], manifest: string): Promise<void> {
    const db = this.#db;
    const ctx = { namespace };
    const flat = this.#random.chance(0.5) ? [withLabel(gc('flat'), 'x')] : [];
    await db.leases.create(ctx, withId(`l${n}`), ...flat);
    const layer = digestOf(Buffer.alloc(2000 + 500 * (layers[0] ?? 0), `layer-${layers[0] ?? 0}`));
    for (const id of [layer, manifest]) {
      if (this.#random.chance(0.6)) await db.leases.addResource(ctx, `l${n}`, { id, type: 'content' });
    }
    const chain = [...this.#chains].find((name) => name.startsWith(`${namespace} `))?.split(' ')[1];
    if (chain !== undefined)
      await db.leases.addResource(ctx, `l${n}`, { id: chain, type: 'snapshots/native' });
  }

  /** As a client removes it. */
  async remove({ kind, namespace, key }: { kind: string; namespace: string; key: string }): Promise<void> {
    const ctx = { namespace };
    if (kind === 'image') await this.#db.images.delete(ctx, key);
    else if (kind === 'lease') await this.#db.leases.delete(ctx, key);
    else await this.#db.containers.delete(ctx, key);
  }
}
