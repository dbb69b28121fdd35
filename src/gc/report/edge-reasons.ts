/**
 * Names an edge of the graph: which field or label of which record makes it. The graph itself does not know, so the
 * records at both ends are asked, one label at a time, through the same indexer that made the edge. Used by why.ts.
 */
import type { Adjacency, Engine, Key, Value } from '../../engine/contract.js';
import { collectionOf, namespaceOf, Relation, snapshotKey } from '../../engine/schema/keys.js';
import { Label } from '../../model/labels.js';
import { conditionalReferences } from '../mark/conditions.js';
import { labelsOf, metadataIndexer } from '../references.js';

export interface StepReason {
  /**
   * What leads to the object: `root` itself, a `field` or `label` of the object before, a `back label` of its own, the
   * `lease` before that holds it (plain or flat), a `condition` label of the object before, or a `collector`.
   */
  via: 'root' | 'field' | 'label' | 'back label' | 'lease' | 'flat lease' | 'condition' | 'collector';
  /** Field or label key; '' where there is none. */
  name: string;
}

/** The field that a record's structural edge comes from, by its collection. */
const fields: Readonly<Record<string, string>> = {
  images: 'target',
  snapshots: 'parent',
  containers: 'snapshotKey',
  ingests: 'expected',
};

export class EdgeReasons {
  readonly #engine: Engine;
  /** Reasons by `from` and `to`: many ways share their last edges. */
  readonly #known = new Map<string, StepReason>();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  of(from: number, to: number): StepReason {
    const edge = `${from} ${to}`;
    let reason = this.#known.get(edge);
    if (reason === undefined) {
      const [source, target] = [this.#engine.keyOf(from), this.#engine.keyOf(to)];
      reason = (source && target && this.#find(source, target)) || { via: 'field', name: '' };
      this.#known.set(edge, reason);
    }
    return reason;
  }

  /** The label that makes content or a snapshot a root; other roots are ones by their kind. */
  ofRoot(id: number): StepReason {
    const record = this.#engine.keyOf(id);
    const collection = record === undefined ? '' : collectionOf(record);
    if (record !== undefined && (collection === 'blobs' || collection === 'snapshots')) {
      const label = Object.keys(labelsOf(this.#engine.get(record))).find((k) => k.startsWith(Label.gcRoot));
      if (label !== undefined) return { via: 'root', name: label };
    }
    return { via: 'root', name: '' };
  }

  #find(from: Key, to: Key): StepReason | undefined {
    const engine = this.#engine;
    if (collectionOf(from) === 'leases') {
      if (engine.hasLink(from, Relation.holds, to)) return { via: 'lease', name: '' };
      if (engine.hasLink(from, Relation.holdsFlat, to)) return { via: 'flat lease', name: '' };
    }
    const source = engine.get(from);
    if (source !== undefined && leadsTo(withLabel(from, source), to)) {
      return { via: 'field', name: fields[collectionOf(from)] ?? '' };
    }
    const label = source && labelThat(source, (name) => leadsTo(withLabel(from, source, name), to));
    if (label !== undefined) return { via: 'label', name: label };
    const target = engine.get(to);
    const back = target && labelThat(target, (name) => leadsBack(withLabel(to, target, name), from));
    if (back !== undefined) return { via: 'back label', name: back };
    const condition = source && labelThat(source, (name) => isConditionOn(from, source, name, to));
    return condition === undefined ? undefined : { via: 'condition', name: condition };
  }
}

const leadsTo = (node: Adjacency | undefined, to: Key): boolean =>
  node?.edges.some((edge) => !edge.back && edge.to === to) ?? false;
const leadsBack = (node: Adjacency | undefined, to: Key): boolean =>
  node?.edges.some((edge) => edge.back === true && edge.to === to) ?? false;

function labelThat(value: Value, matches: (name: string) => boolean): string | undefined {
  return Object.keys(labelsOf(value)).find(matches);
}

/** The record's edges as if it had this label only; the expiry stays, since it decides which labels are read. */
function withLabel(record: Key, value: Value, name?: string): Adjacency | undefined {
  if (typeof value === 'string') return undefined;
  const labels = labelsOf(value);
  const kept = Object.entries(labels).filter(([key]) => key === name || key === Label.gcExpire);
  // Labels of a stored record are texts.
  return metadataIndexer.node(record, {
    ...value,
    labels: Object.fromEntries(kept) as Record<string, string>,
  });
}

function isConditionOn(from: Key, value: Value, name: string, to: Key): boolean {
  const references = conditionalReferences({ [name]: labelsOf(value)[name] });
  return references.some(({ snapshotter, snapshotKey: target }) => {
    try {
      return snapshotKey(namespaceOf(from), snapshotter, target) === to;
    } catch {
      return false; // No snapshot can have that key.
    }
  });
}
