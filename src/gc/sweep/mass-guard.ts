/**
 * Stops a run that would remove nearly everything: more likely a mistake (lost records, a wrong directory, a
 * clock far ahead) than garbage. Called by collect.ts between the mark and the first removal, for runs without
 * an audience: scheduled ones and those of the command line; and before a policy retires roots. Reads only.
 */
import { yieldToEventLoop } from '../../backends/files.js';
import { type Engine, NodeFlag } from '../../engine/contract.js';
import { MarkBit } from '../../engine/graph.js';
import { key, leaf } from '../../engine/schema/keys.js';
import { type EbbtideError, failedPrecondition, invalidArgument } from '../../errors.js';
import { ResourceContent, ResourceSnapshot } from '../types.js';

/** How much a run may remove before it is stopped. */
export interface MassGuard {
  /** Largest share of all blobs, or of all snapshots, that one run may remove: 0 … 1, default 0.9. */
  maxShare?: number | undefined;
  /** So many blobs, snapshots, or records of a namespace may go in any case; default 100. */
  floor?: number | undefined;
}

export interface GuardLimits {
  readonly maxShare: number;
  readonly floor: number;
}

const DEFAULTS: GuardLimits = { maxShare: 0.9, floor: 100 };
const RECORDS_PER_TURN = 4096;
const REMEDY =
  'look at `ebbtide gc --dry-run`; if it is right, confirm with `ebbtide gc --allow-mass-removal` or massGuard: false';

/** `true` means the defaults, `false` and undefined no guard. InvalidArgument for what is out of range. */
export const massGuard = (option: boolean | MassGuard | undefined): GuardLimits | undefined =>
  guardLimits('massGuard', option, DEFAULTS);

export function guardLimits(
  name: string,
  option: boolean | MassGuard | undefined,
  defaults: GuardLimits,
): GuardLimits | undefined {
  if (option === undefined || option === false) return undefined;
  const given = option === true ? {} : option;
  const { maxShare = defaults.maxShare, floor = defaults.floor } = given;
  if (!(maxShare >= 0 && maxShare <= 1)) {
    throw invalidArgument(`${name}.maxShare is ${maxShare}`, { remedy: 'use a number from 0 to 1' });
  }
  if (!(floor >= 0)) {
    throw invalidArgument(`${name}.floor is ${floor}`, { remedy: 'use a number from 0 up' });
  }
  return { maxShare, floor };
}

/** What stays, as far as it is known. */
export interface Kept {
  isKept(id: number): boolean;
  /** By type; may be too few. */
  readonly marked?: Uint32Array;
}

/** FailedPrecondition when the removal of `garbage` is more than the guard lets pass. */
export async function checkMass(
  engine: Engine,
  garbage: Uint32Array,
  guard: GuardLimits,
  { isKept, marked }: Kept,
): Promise<void> {
  const { maxShare, floor } = guard;
  const goes = await countByType(engine, garbage);
  for (const [type, what] of [
    [ResourceContent, 'blobs'],
    [ResourceSnapshot, 'snapshots'],
  ] as const) {
    const gone = goes[type] ?? 0;
    // The mark's count leaves out what only conditions and collectors keep, so it may only clear a run.
    if (gone <= floor || gone <= maxShare * (gone + (marked?.[type] ?? 0))) continue;
    const all = presentOf(engine, type);
    if (gone > maxShare * all) throw tooMany(`${gone} of ${all} ${what}`, gone / all);
  }
  for (const [record] of engine.scan(key('namespaces')))
    await checkNamespace(engine, leaf(record), floor, isKept);
}

async function countByType(engine: Engine, ids: Uint32Array): Promise<number[]> {
  const counts: number[] = [];
  for (const [i, id] of ids.entries()) {
    if (i % RECORDS_PER_TURN === RECORDS_PER_TURN - 1) await yieldToEventLoop();
    const type = engine.graph.flagsOf(id) >> 8;
    counts[type] = (counts[type] ?? 0) + 1;
  }
  return counts;
}

function presentOf({ graph }: Engine, type: number): number {
  let count = 0;
  for (const id of graph.withFlags((type << 8) | NodeFlag.present)) {
    if (graph.flagsOf(id) >> 8 === type) count++;
  }
  return count;
}

/** Kinds of records in the order in which a kept one is soonest found. */
const collections = [
  'images',
  'containers',
  'sandboxes',
  'leases',
  'blobs',
  'snapshots',
  'ingests',
  'mounts',
];

/** A namespace of which nothing is kept, though it has records. Usually ends at its first image. */
async function checkNamespace(
  engine: Engine,
  ns: string,
  floor: number,
  isKept: Kept['isKept'],
): Promise<void> {
  let records = 0;
  for (const collection of collections) {
    for (const [record] of engine.scan(key(collection, ns))) {
      const id = engine.idOf(record);
      if (id === undefined || isKept(id)) return;
      if (++records % RECORDS_PER_TURN === 0) await yieldToEventLoop();
    }
  }
  if (records <= floor) return;
  throw failedPrecondition(
    `namespace "${ns}" has ${records} records but no root left: all would be removed`,
    {
      object: ns,
      remedy: REMEDY,
    },
  );
}

/** Of a run, after its mark. */
export const isMarked =
  ({ graph }: Engine) =>
  (id: number): boolean =>
    (graph.marksOf(id) & (MarkBit.plain | MarkBit.flat | MarkBit.allocatedBlack)) !== 0;

const tooMany = (what: string, share: number): EbbtideError =>
  failedPrecondition(`the collection would remove ${what} (${Math.floor(share * 100)} %)`, {
    remedy: REMEDY,
  });
