/** What the workload of the power-loss test does and reports, and what it was promised up to a moment. */
import { join } from 'node:path';
import type { Random } from '../support/random.js';

/** Where the store is below the recorded root: making it is part of what is tested. */
export const storeIn = (root: string): string => join(root, 'store');
export const SESSIONS = 3;
export const WRITERS = 3;
export const LAYERS = 6;

export const layerBytes = (n: number): Buffer => Buffer.alloc(700 + n * 911, `layer ${n} `);
export const manifestBytes = (name: string): Buffer => Buffer.from(`manifest of ${name}`);
export const namespaceOf = (writer: number): string => (writer % 2 === 0 ? 'even' : 'odd');

/** Bytes and a directory that are kept by a label on them, and removed by name. */
export interface PinPlan {
  kind: 'pin';
  name: string;
  writer: number;
}

export interface ImagePlan {
  kind: 'image';
  name: string;
  writer: number;
  layers: number[];
  /** Whether a container runs on it. */
  container: boolean;
  /** Value of the image's label `version`, raised by updates. */
  version: number;
}

export function planImage(writer: number, session: number, n: number, random: Random): ImagePlan {
  const layers = [random.int(LAYERS), random.int(LAYERS)];
  return {
    kind: 'image',
    name: `img-${writer}-${session}-${n}`,
    writer,
    layers,
    container: random.chance(0.3),
    version: 1,
  };
}

export type Plan = ImagePlan | PinPlan;

export type Mark =
  | { event: 'open' | 'closed' }
  /** `create` with a version above 1 is an update. */
  | { event: 'begin' | 'ack'; op: 'create' | 'delete'; plan: Plan }
  | { event: 'put'; key: string; value: number }
  | { event: 'collected'; removed: number };

/** State at one moment. */
export interface Expected {
  live: Plan[];
  /** Deleted, and so acknowledged. */
  gone: Plan[];
  /** Under way: there or not; an update may have happened or not. `before`: what was acknowledged before it. */
  open: { plan: Plan; before: Plan | undefined; op: 'create' | 'delete' }[];
  /** Lowest value of a raw key. */
  raw: Record<string, number>;
  acks: number;
}

export class Promised {
  readonly #live = new Map<string, Plan>();
  readonly #gone = new Map<string, Plan>();
  readonly #open = new Map<string, Expected['open'][number]>();
  readonly #raw = new Map<string, number>();
  acks = 0;
  collections = 0;

  take(mark: Mark): void {
    if (mark.event === 'collected') this.collections++;
    if (mark.event === 'put') this.#raw.set(mark.key, mark.value);
    if (mark.event === 'put' || mark.event === 'ack') this.acks++;
    if (mark.event !== 'begin' && mark.event !== 'ack') return;
    const { plan, op } = mark;
    if (mark.event === 'begin') {
      this.#open.set(plan.name, { plan, op, before: this.#live.get(plan.name) });
      this.#live.delete(plan.name);
    } else {
      this.#open.delete(plan.name);
      (op === 'create' ? this.#live : this.#gone).set(plan.name, plan);
    }
  }

  expected(): Expected {
    return {
      live: [...this.#live.values()],
      gone: [...this.#gone.values()],
      open: [...this.#open.values()],
      raw: Object.fromEntries(this.#raw),
      acks: this.acks,
    };
  }
}
