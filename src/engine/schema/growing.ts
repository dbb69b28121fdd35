/** A list of numbers that grows by doubling, without an object for each. Called by what reads, or fills, whole stores. */

type Numbers = Uint32Array | Int32Array | Float64Array;

const FIRST = 1024;

export class Growing<T extends Numbers> {
  readonly #make: new (
    length: number,
  ) => T;
  #numbers: T;
  length = 0;

  constructor(make: new (length: number) => T) {
    this.#make = make;
    this.#numbers = new make(FIRST);
  }

  push(number: number): void {
    if (this.length === this.#numbers.length) this.#widen();
    this.#numbers[this.length++] = number;
  }

  /** Of those that there are. */
  set(place: number, number: number): void {
    this.#numbers[place] = number;
  }

  at(place: number): number {
    return this.#numbers[place] ?? 0;
  }

  /** All of them: a view, good until the next one is added. */
  take(): T {
    return this.#numbers.subarray(0, this.length) as T;
  }

  #widen(): void {
    const larger = new this.#make(2 * this.#numbers.length);
    larger.set(this.#numbers);
    this.#numbers = larger;
  }
}
