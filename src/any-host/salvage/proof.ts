/**
 * Whether a record is what it is called: by its name in its own page (snapshots, ingests), by the size of its file (content), and by what else
 * the disk has. Called by merge.ts and reuse.ts.
 */
import type { Disk } from './disk.js';
import type { Facts } from './facts.js';
import type { FoundRecord } from './walk.js';

/** `contradicted`: by itself or the disk, and how. */
export type Proof = 'proved' | 'plausible' | { readonly contradicted: string };

/** By itself: its spec is damaged, or what it calls itself is not what it is called. */
export function isContradicted({ path, kind, key, facts: { name, isSpecDamaged } }: FoundRecord): boolean {
  if (kind === 'snapshot' || kind === 'ingest') return name?.namespace !== path[1] || name?.key !== key;
  return isSpecDamaged;
}

export function proofOf(record: FoundRecord, disk: Disk): Proof {
  const { path, kind, facts } = record;
  if (isContradicted(record))
    return { contradicted: facts.isSpecDamaged ? 'its spec is damaged' : 'its fields are of another one' };
  if (kind === 'content') return blobProof(record, disk);
  if (facts.name === undefined) return 'plausible';
  const backend = kind === 'snapshot' ? disk.snapshots.get(path[3] ?? '') : undefined;
  const stored = `${facts.name.namespace}/${facts.name.number}/${facts.name.key}`;
  if (backend === undefined || backend.has(Buffer.from(stored, 'latin1').toString())) return 'proved';
  return { contradicted: 'its snapshotter does not have it' };
}

function blobProof({ key, facts }: FoundRecord, disk: Disk): Proof {
  if (disk.blobs === undefined) return 'plausible';
  const file = disk.blobs.get(key);
  if (file === undefined) return { contradicted: 'it has no file' };
  if (file.size !== facts.size) return { contradicted: `its file has ${file.size} bytes` };
  return hasOthersLabels(key, facts, disk) ? { contradicted: 'its labels are of another one' } : 'proved';
}

/** Its labels refer to nothing of what the document refers to. */
function hasOthersLabels(digest: string, { references }: Facts, disk: Disk): boolean {
  const named = references.length === 0 ? new Set<string>() : disk.namedIn(digest);
  return named.size > 0 && !references.some((name) => named.has(name));
}
