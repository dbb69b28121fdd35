/** Which labels of a containerd's records mean something, by its version. Called by load.ts and its thread. */
import type { Indexer, Value } from '../../engine/contract.js';
import { collectionOf } from '../../engine/schema/keys.js';
import { labelsOf, metadataIndexer } from '../../gc/references.js';
import { Label } from '../../model/labels.js';
import type { StringMap } from '../../model/records.js';
import { REVISION_OF_2 } from './records.js';

/** @param revision of containerd's tree */
export const indexerOf = (revision: number): Indexer =>
  revision < REVISION_OF_2 ? indexerOf1 : metadataIndexer;

/** Before 2.0 only its deletion ended an image, and labels of later collections mean nothing. */
const indexerOf1: Indexer = {
  ...metadataIndexer,
  node(key, value) {
    const node = metadataIndexer.node(key, withoutLaterLabels(value));
    return node !== undefined && collectionOf(key) === 'images' ? { ...node, expireAt: undefined } : node;
  },
};

function withoutLaterLabels(value: Value): Value {
  if (typeof value === 'string') return value;
  const labels = labelsOf(value) as StringMap;
  // Nearly no record has one.
  for (const name in labels)
    if (isLater(name)) {
      const known = Object.entries(labels).filter(([one]) => !isLater(one));
      return { ...value, labels: Object.fromEntries(known) };
    }
  return value;
}

/** Back references, conditions, and roots by more than the whole key. */
const isLater = (name: string): boolean =>
  name.startsWith(GC) && name !== Label.gcRoot && LATER.some((prefix) => name.startsWith(prefix));
const GC = 'containerd.io/gc.';
const LATER = [Label.gcRoot, `${Label.gcBref}.`, Label.gcCondSnapshot, Label.gcCondUsedat];
