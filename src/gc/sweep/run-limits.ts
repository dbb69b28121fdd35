/**
 * How much one run may remove. Called by collect.ts between the mark and the first removal; reads only. What is left
 * over stays garbage for the next run.
 */
import { yieldToEventLoop } from '../../backends/files.js';
import { invalidArgument } from '../../errors.js';
import { type DryRunHost, sizeOf } from '../report/dry-run.js';

export interface RunLimits {
  /** Records one run removes at most. */
  maxObjects?: number | undefined;
  /** Bytes of blobs and snapshots one run removes at most, except that a single larger one is removed. */
  maxBytes?: number | undefined;
}

const SIZES_PER_TURN = 512;

export function checkLimits(limits: RunLimits): void {
  for (const name of ['maxObjects', 'maxBytes'] as const) {
    const limit = limits[name];
    if (limit === undefined || limit > 0) continue;
    throw invalidArgument(`${name} is ${limit}`, { object: name, remedy: 'use a number above 0' });
  }
}

/**
 * The beginning of the candidates that the limits let pass. Since referrers come before what they refer to, the rest is
 * garbage as before.
 */
export async function limitCandidates(
  host: DryRunHost,
  ids: Uint32Array,
  { maxObjects = Number.POSITIVE_INFINITY, maxBytes }: RunLimits,
): Promise<Uint32Array> {
  const first = ids.subarray(0, Math.min(ids.length, maxObjects));
  if (maxBytes === undefined) return first;
  let bytes = 0;
  for (const [i, id] of first.entries()) {
    if (i % SIZES_PER_TURN === SIZES_PER_TURN - 1) await yieldToEventLoop();
    const size = await sizeOf(host, id);
    if (bytes > 0 && bytes + size > maxBytes) return first.subarray(0, i);
    bytes += size;
  }
  return first;
}
