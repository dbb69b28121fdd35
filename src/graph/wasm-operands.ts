/** Checks of what the WebAssembly core is passed: those of native/addon.cc. Used by wasm-graph.ts. */
import { invalidArgument } from '../errors.js';

const MOST_U32 = 2 ** 32 - 1;

export function checkArray(value: ArrayBufferView, wanted: { name: string; new (): ArrayBufferView }): void {
  const isPlain = value instanceof wanted && value.buffer instanceof ArrayBuffer;
  if (!isPlain) throw invalidArgument(`expected a ${wanted.name} that is not shared between threads`);
}

export function words(value: Uint32Array): Uint32Array {
  checkArray(value, Uint32Array);
  return value;
}

export function doubles(value: Float64Array): Float64Array {
  checkArray(value, Float64Array);
  return value;
}

/** A count or an id; more than 32 bits are as much as they hold, which is more than any id. */
export function u32(n: number): number {
  if (!Number.isSafeInteger(n) || n < 0)
    throw invalidArgument('expected a whole number that is not negative');
  return Math.min(n, MOST_U32);
}

export function time(value: bigint): bigint {
  if (typeof value === 'bigint' && BigInt.asIntN(64, value) === value) return value;
  throw invalidArgument('expected a time of 64 bits, as a BigInt');
}
