/**
 * The list a dry run answers with: what a collection would remove now, with sizes. Called by collect.ts between
 * the mark and the end of the run; reads only.
 */
import type { SnapshotterBackend } from '../backends/contract.js';
import type { Engine } from '../engine/contract.js';
import { components } from '../engine/schema/keys.js';
import type { Candidate } from './stats.js';
import { kindName, nodeOfKey, ResourceContent, ResourceSnapshot } from './types.js';

export interface DryRunHost {
  readonly engine: Engine;
  readonly backends: ReadonlyMap<string, SnapshotterBackend>;
}

/** Candidates listed before other work gets its turn. */
const BATCH = 512;

export async function listCandidates(host: DryRunHost, ids: Uint32Array): Promise<Candidate[]> {
  const list: Candidate[] = [];
  for (const id of ids) {
    const record = host.engine.keyOf(id);
    const node = record === undefined ? undefined : nodeOfKey(record);
    if (record === undefined || node === undefined) continue;
    const size = await sizeOf(host, record, node.type);
    list.push({ kind: kindName(node.type), namespace: node.namespace, key: node.key, size });
    if (list.length % BATCH === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  return list;
}

/** Bytes a record's object takes in its backend; 0 when the backend does not know it. */
async function sizeOf(host: DryRunHost, record: string, type: number): Promise<number> {
  if (type !== ResourceContent && type !== ResourceSnapshot) return 0;
  const value = host.engine.get(record);
  if (typeof value !== 'object') return 0;
  if (type === ResourceContent) return typeof value.size === 'number' ? value.size : 0;
  const backend = host.backends.get(components(record)[2] ?? '');
  if (backend === undefined || typeof value.name !== 'string') return 0;
  try {
    return (await backend.usage(value.name)).size;
  } catch {
    return 0;
  }
}
