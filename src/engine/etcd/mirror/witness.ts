/**
 * The last commit that a mirror has, by which it recognises the history that it is of. An etcd that was restored from a backup
 * has the name of the old one and goes on from an earlier revision, so a revision alone says nothing: a watch that went on from
 * there would show neither what the restored tree has again nor what it lacks. Called by mirror.ts.
 */
import type { EtcdClient, KeyValue } from '../client/client.js';
import { EtcdFailure } from '../client/failure.js';
import { parseCommitRecord } from '../format/gate.js';

/** A commit's record: its key, the revision that wrote it, and its id, which no other commit has. */
export interface Witness {
  readonly key: string;
  readonly mod: number;
  readonly id: string;
}

/** `unknown`: the witness was written over, and its revision compacted. */
export type History = 'same' | 'other' | 'unknown';

export const witnessOf = ({ key, mod, value }: KeyValue): Witness => ({
  key,
  mod,
  id: parseCommitRecord(value)?.id ?? '',
});

/** What etcd's history is to the one that the witness is of. */
export async function historyOf(client: EtcdClient, { key, mod, id }: Witness): Promise<History> {
  const { kvs, revision } = await client.range(key);
  if (revision < mod) return 'other';
  const isIt = (kv: KeyValue | undefined): boolean => kv?.mod === mod && witnessOf(kv).id === id;
  if (isIt(kvs[0])) return 'same';
  try {
    const then = await client.range(key, { revision: mod });
    return isIt(then.kvs[0]) ? 'same' : 'other';
  } catch (error) {
    if (error instanceof EtcdFailure && error.lacksRevision) return 'unknown';
    throw error;
  }
}
