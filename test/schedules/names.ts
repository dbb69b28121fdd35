/**
 * The few names every schedule is about. Few, so that writers and collections keep meeting on the same objects, keys
 * are used again, and references dangle and are filled in. Random labels over them, in the words of the grammar.
 */

import { type Node, ResourceContent, ResourceImage, ResourceSnapshot } from '../../src/gc/types.js';
import { digestOf } from '../../src/model/digest.js';
import { formatTimestamp, now } from '../../src/model/time.js';
import type { Random } from '../support/random.js';

export const namespaces = ['ns1', 'ns2'] as const;
export const snapshotters = ['native', 'other'] as const;
export const texts = [...'abcdefghij'];
export const images = ['i0', 'i1', 'i2', 'i3'];
export const snapshots = ['k0', 'k1', 'k2', 'k3', 'k4', 'k5'];
export const leases = ['l0', 'l1', 'l2', 'l3'];
export const refs = ['r0', 'r1', 'r2'];
export const containers = ['c0', 'c1'];
export const sandboxes = ['x0'];
export const mounts = ['m0', 'm1', 'm2'];
export const streams = ['t0', 't1'];

export const digests: readonly string[] = texts.map((text) => digestOf(Buffer.from(text)));
export const textOf = (digest: string): string => texts[digests.indexOf(digest)] ?? '';

const GC = 'containerd.io/gc.';
const HOUR = 3_600_000_000_000n;

export type Labels = Record<string, string>;

/** Times far from the moment of any run, so that no schedule hangs on the clock. */
const hoursFromNow = (hours: bigint): string => formatTimestamp(now() + hours * HOUR);

/** An expiry label that is past or to come, or none. */
export function expiry(random: Random): Labels {
  const hours = random.pick([-1n, -1n, 1n, undefined]);
  return hours === undefined ? {} : { [`${GC}expire`]: hoursFromNow(hours) };
}

export const expired = (): Labels => ({ [`${GC}expire`]: hoursFromNow(-1n) });
export const flat: Labels = { [`${GC}flat`]: 'x' };

function reference(random: Random, word: 'ref' | 'bref'): [string, string] {
  const suffix = random.pick(['', '.0', '/x']);
  switch (random.int(word === 'ref' ? 6 : 5)) {
    case 0:
    case 1:
      return [`${GC}${word}.content${suffix}`, random.pick(digests)];
    case 2:
    case 3:
      return [`${GC}${word}.snapshot.${random.pick(snapshotters)}`, random.pick(snapshots)];
    case 4:
      return word === 'ref' || random.chance(0.5)
        ? [`${GC}${word}.image${suffix}`, random.pick(images)]
        : [`${GC}bref.container`, random.pick(containers)];
    default:
      return random.chance(0.5)
        ? [`${GC}ref.stream${suffix}`, random.pick(streams)]
        : [`${GC}ref.mount${suffix}`, random.pick(mounts)];
  }
}

/** One label that makes or supplies a reference, or a root. */
function label(random: Random): [string, string] {
  const kind = random.int(20);
  if (kind < 12) return reference(random, 'ref');
  if (kind < 16) return reference(random, 'bref');
  if (kind < 17) return [`${GC}root`, 'x'];
  if (kind < 18) return [`${GC}cond.value-usedat.x`, hoursFromNow(random.pick([-1n, -3n]))];
  const test = random.pick(['<7200s', '>7200s']);
  return [
    `${GC}cond.snapshot.${random.pick(snapshotters)}/${test[0]}`,
    `usedat${test}|${random.pick(snapshots)}`,
  ];
}

/** Up to `max` labels. */
export function labels(random: Random, max: number): Labels {
  return Object.fromEntries(Array.from({ length: random.int(max + 1) }, () => label(random)));
}

/** A record in any of the kinds a collector may refer to. */
export function node(random: Random, namespace: string): Node {
  switch (random.int(4)) {
    case 0:
      return { type: ResourceImage, namespace, key: random.pick(images) };
    case 1:
      return { type: ResourceContent, namespace, key: random.pick(digests) };
    default:
      return {
        type: ResourceSnapshot,
        namespace,
        key: `${random.pick(snapshotters)}/${random.pick(snapshots)}`,
      };
  }
}
