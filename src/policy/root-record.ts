/**
 * What a plan reads of the record of each root, without an object for the rest of it. Called by roots.ts, for every root of a
 * store.
 */
import type { StoredNode } from '../engine/contract.js';
import { DamagedBytes } from '../engine/schema/bytes.js';
import { decodeFields } from '../engine/schema/codec.js';
import { StoredRecord } from '../engine/schema/stored-record.js';
import { type RootRecord, targetOf, type UsedRecord } from '../gc/report/root-use.js';
import type { StringMap } from '../model/records.js';
import type { Instant } from '../model/time.js';

export interface ReadRoot extends UsedRecord {
  /** The digest that an image names; undefined for others. */
  readonly target: string | undefined;
  /** The image that a container names; '' for others. */
  readonly image: string;
}

/** Those that filters ask for, too. */
const FIELDS = new Set(['createdat', 'updatedat', 'labels', 'annotations', 'target', 'image', 'runtime']);

/** The record as filters see it. Every record of these kinds has the other fields that its type says. */
export const wholeRoot = (node: StoredNode): RootRecord =>
  decodeFields(node, FIELDS) as unknown as RootRecord;

const stored = new StoredRecord();

/** As far as the record is what it mostly is; else by way of the whole of it, which says what is damaged. */
export function readRoot(node: StoredNode): ReadRoot {
  try {
    const quick = readQuickly(node);
    if (quick !== undefined) return quick;
  } catch (error) {
    if (!(error instanceof DamagedBytes)) throw error;
  }
  const record = wholeRoot(node);
  const { createdat, labels } = record;
  return {
    createdat,
    updatedat: 'updatedat' in record ? record.updatedat : undefined,
    labels,
    target: targetOf(record),
    image: 'image' in record ? record.image : '',
  };
}

/** Undefined: it holds something else than it mostly does. */
function readQuickly(node: StoredNode): ReadRoot | undefined {
  let createdat: Instant | undefined;
  let updatedat: Instant | undefined;
  let labels: StringMap | undefined;
  let target: string | undefined;
  let image = '';
  stored.beginNode(node);
  for (let left = stored.fields(); left > 0; left--) {
    const field = stored.field();
    switch (field) {
      case 'createdat':
        createdat = stored.instant();
        if (createdat === undefined) return undefined;
        break;
      case 'updatedat':
        updatedat = stored.instant();
        if (updatedat === undefined) return undefined;
        break;
      case 'labels':
        labels = readLabels();
        if (labels === undefined) return undefined;
        break;
      case 'target':
        target = readDigest();
        if (target === undefined) return undefined;
        break;
      case 'image':
        if (!stored.isText()) return undefined;
        image = stored.text();
        break;
      default:
        if (field === undefined || !stored.skip()) return undefined;
    }
  }
  if (createdat === undefined || !stored.atEnd) return undefined;
  return { createdat, updatedat, labels, target, image };
}

/** Undefined: another kind of value. */
function readLabels(): StringMap | undefined {
  const count = stored.entries();
  if (count < 0) return undefined;
  const labels: Record<string, string> = {};
  for (let left = count; left > 0; left--) {
    const name = stored.text();
    // None that is asked for; and not by assignment.
    if (name === '__proto__') stored.skipText();
    else labels[name] = stored.text();
  }
  return labels;
}

/** Of a target. Undefined: another kind of value, or none. */
function readDigest(): string | undefined {
  let digest: string | undefined;
  for (let left = stored.fields(); left > 0; left--) {
    const field = stored.field();
    if (field !== 'digest') {
      if (field === undefined || !stored.skip()) return undefined;
    } else if (stored.isText()) digest = stored.text();
    else return undefined;
  }
  return digest;
}
