/** The operations that delays and rates are measured with; the peer issues the same (peer/operations.go). */
import type { CallContext } from '../src/context.js';
import type { DB } from '../src/db.js';
import { withExpiration, withId } from '../src/stores/leases.js';
import { indexMediaType } from '../src/synth/records.js';
import type { Target } from './results.js';

/** Few enough to be asked for again before they have left the caches. */
const TARGETS_MAX = 2000;
const DAY_MS = 24 * 3600 * 1000;

export class Operations {
  readonly ctx: CallContext = { namespace: 'k8s.io' };
  /** Of the context's namespace. */
  readonly targets: readonly Target[];
  readonly #all: readonly Target[];
  readonly #db: DB;
  readonly #unique = process.hrtime.bigint().toString(36);
  #made = 0;

  constructor(db: DB, all: readonly Target[]) {
    this.#db = db;
    this.#all = all;
    this.targets = all.filter(({ namespace }) => namespace === this.ctx.namespace).slice(0, TARGETS_MAX);
  }

  /** Walks the targets in an order that neighbours in the store do not follow. */
  at(i: number, among = this.targets): Target {
    return among[(i * 7919) % among.length]!;
  }

  async imageCreate(i: number, db = this.#db, ctx = this.ctx): Promise<void> {
    await db.images.create(ctx, {
      name: `bench.example.com/${this.#unique}/${this.#made++}:latest`,
      target: { mediaType: indexMediaType, digest: this.at(i).index, size: 1400 },
      labels: { 'io.cri-containerd.image': 'managed' },
    });
  }

  async leaseCreate(): Promise<void> {
    await this.#db.leases.create(
      this.ctx,
      withId(`bench-${this.#unique}-${this.#made++}`),
      withExpiration(DAY_MS),
    );
  }

  async labelUpdate(i: number): Promise<void> {
    await this.#db.content.update(
      this.ctx,
      { digest: this.at(i).layer, labels: { bench: String(i) } },
      'labels.bench',
    );
  }

  async imageGetKept(i: number): Promise<void> {
    await this.#db.images.get(this.ctx, this.at(i).image);
  }

  async contentInfoKept(i: number): Promise<void> {
    await this.#db.content.info(this.ctx, this.at(i).manifest);
  }

  /** Over the images of all namespaces. */
  async imageGet(i: number): Promise<void> {
    const { namespace, image } = this.at(i, this.#all);
    await this.#db.images.get({ namespace }, image);
  }

  /** Over their indexes, manifests and layers. */
  async contentInfo(i: number): Promise<void> {
    const { namespace, index, manifest, layer } = this.at(i, this.#all);
    await this.#db.content.info({ namespace }, i % 3 === 0 ? index : i % 3 === 1 ? manifest : layer);
  }
}
