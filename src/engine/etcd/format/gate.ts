/**
 * What commits leave in etcd for every mirror to read: their records, and the gate of a unit with its staged changes.
 * Called by mirror.ts, commit.ts and load code.
 */
import { unavailable } from '../../../errors.js';
import type { Key } from '../../contract.js';
import type { EtcdClient, KeyValue } from '../client/client.js';
import { Sys } from './layout.js';
import { parseStaged, type StagedChange } from './unit.js';

/** What a commit records beside its changes, in its slot. */
export interface CommitRecord {
  id: string;
  /** Keys that were deleted and made again. */
  again?: Key[];
  /** Deletions a user asked for. */
  deletions?: number;
  /** Keys that the commit deletes for certain. */
  gone?: number;
  /** Removes garbage; for tests that read the history. */
  garbage?: boolean;
}

export interface Gate {
  readonly id: string;
  readonly state: 'open' | 'flipped';
  readonly create: number;
  readonly mod: number;
  readonly chunks: number;
}

export function parseCommitRecord(value: Buffer): CommitRecord | undefined {
  try {
    return JSON.parse(value.toString('utf8')) as CommitRecord;
  } catch {
    return undefined;
  }
}

export function parseGate(kv: KeyValue): Gate | undefined {
  try {
    const { id, state, chunks } = JSON.parse(kv.value.toString('utf8')) as Partial<Gate>;
    if (typeof id !== 'string' || (state !== 'open' && state !== 'flipped')) return undefined;
    return { id, state, chunks: chunks ?? 0, create: kv.create, mod: kv.mod };
  } catch {
    return undefined;
  }
}

/** The changes a unit stages, as they are at a revision; undefined: now. */
export async function fetchUnit(client: EtcdClient, gate: Gate, revision?: number): Promise<StagedChange[]> {
  const dir = Sys.unit(gate.id);
  const changes: StagedChange[] = [];
  for (let n = 0; n < gate.chunks; n++) {
    // Any member that has the revision knows what it was then; what is there now, only the leader.
    const serializable = revision !== undefined;
    const { kvs } = await client.range(dir + chunkName(n), { revision, serializable });
    if (kvs[0] === undefined) throw unavailable(`part ${n} of transaction ${gate.id} is missing in etcd`);
    changes.push(...parseStaged(kvs[0].value));
  }
  return changes;
}

export const decimal = (kv: KeyValue): number => Number(kv.value.toString('utf8')) || 0;

export const chunkName = (n: number): string => String(n).padStart(6, '0');
