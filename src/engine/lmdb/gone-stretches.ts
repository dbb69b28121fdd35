/**
 * Stretches of the tree in which every node is gone, by commits that the tree does not have yet: a collection removes neighbours,
 * and each look for the first record that is left would pass over all of them. Called by the storage for its walks; one thread.
 */
import type { Key } from '../contract.js';
import { encodeKey } from './codec/key-codec.js';
import type { Bounds } from './tree/key-index.js';

/** A stretch of fewer is not worth remembering. */
const GONE_MIN = 64;
/** Stretches remembered; of more, those that were of use lately. */
const STRETCHES_MAX = 16;

/** After `from`, which is a key that was left out, or the beginning of keys; before the encoded key `to`. */
interface Stretch {
  readonly from: Buffer;
  /** undefined: up to the end. */
  to: Buffer | undefined;
}

export class GoneStretches {
  readonly #isGone: (id: number) => boolean;
  /** The one that was of use last is the last one. */
  #stretches: Stretch[] = [];

  /** @param isGone whether a node of the tree is gone; that holds until `forget` */
  constructor(isGone: (id: number) => boolean) {
    this.#isGone = isGone;
  }

  /** A walk within bounds, which begins behind what is known to be gone. */
  walk(bounds: Bounds): Walk {
    const stretch = this.#stretches.find((one) => covers(one, bounds));
    if (stretch === undefined) return new Walk(bounds, this.#isGone, (to) => this.#add(bounds.lower, to));
    this.#stretches = [...this.#stretches.filter((one) => one !== stretch), stretch];
    const lower = stretch.to ?? bounds.upper ?? bounds.lower;
    const isAll =
      stretch.to === undefined || (bounds.upper !== undefined && lower.compare(bounds.upper) >= 0);
    const rest = { lower, exclusive: false, upper: isAll ? lower : bounds.upper };
    return new Walk(rest, this.#isGone, (to) => {
      if (!isAll) stretch.to = to;
    });
  }

  #add(from: Buffer, to: Buffer | undefined): void {
    this.#stretches.push({ from, to });
    if (this.#stretches.length > STRETCHES_MAX) this.#stretches.shift();
  }

  /** The tree has changed, or what was gone may be there again. */
  forget(): void {
    this.#stretches = [];
  }
}

const covers = ({ from, to }: Stretch, { lower }: Bounds): boolean =>
  lower.compare(from) >= 0 && (to === undefined || lower.compare(to) < 0);

/** One walk: over rows within `bounds`, but for those of which `isGone` is true, up to the first that is left. */
export class Walk {
  readonly bounds: Bounds;
  readonly #isGone: (id: number) => boolean;
  readonly #found: (to: Buffer | undefined) => void;
  #gone = 0;
  #hasReached = false;

  constructor(bounds: Bounds, isGone: (id: number) => boolean, found: (to: Buffer | undefined) => void) {
    this.bounds = bounds;
    this.#isGone = isGone;
    this.#found = found;
  }

  readonly isGone = (id: number): boolean => {
    if (!this.#isGone(id)) return false;
    this.#gone++;
    return true;
  };

  /** A row that is left, or the end of the bounds (undefined); only the first call counts. */
  reached(key: Key | undefined): void {
    if (this.#hasReached) return;
    this.#hasReached = true;
    if (this.#gone < GONE_MIN) return;
    this.#found(key === undefined ? this.bounds.upper : Buffer.from(encodeKey(key)));
  }
}
