/**
 * Which roots each rule of a policy is about: found while their records are read, so that no record is kept. Called by plan.ts
 * and choice.ts; pure. Memory: 4 bytes for each root that a rule covers.
 */
import { Growing } from '../engine/schema/growing.js';
import { type Adaptor, parseFilters } from '../model/filters.js';
import type { CheckedPolicy, Rule } from './policy.js';
import type { Root } from './roots.js';

interface Covered {
  readonly rule: Rule;
  readonly matches: (fields: Adaptor) => boolean;
  readonly isStopped: (fields: Adaptor) => boolean;
  readonly places: Growing<Uint32Array>;
}

export class Coverage {
  readonly #rules: readonly Covered[];

  constructor({ rules }: CheckedPolicy) {
    this.#rules = rules.map((rule) => ({
      rule,
      matches: parseFilters(rule.filters),
      isStopped: parseFilters(rule.stopped),
      places: new Growing(Uint32Array),
    }));
  }

  add({ kind, namespace, place }: Root, fields: Adaptor): void {
    for (const { rule, matches, isStopped, places } of this.#rules) {
      if (!rule.kinds.includes(kind)) continue;
      if (rule.namespaces !== undefined && !rule.namespaces.includes(namespace)) continue;
      if (kind === 'container' && !isStopped(fields)) continue;
      if (matches(fields)) places.push(place);
    }
  }

  /** Places of the roots that the n-th rule covers, ascending. */
  of(n: number): Uint32Array {
    return this.#rules[n]?.places.take() ?? new Uint32Array();
  }
}
