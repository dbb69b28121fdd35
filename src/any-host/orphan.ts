/** What takes space, or a name, in another program's root, to no purpose. Found by orphans.ts and cache-orphans.ts. */
import type { Instant } from '../model/time.js';

export const orphanReasons = [
  'nothing roots it',
  'expired',
  'no record',
  'no bytes',
  'no snapshot has it',
  'no lease',
  'no cache record',
] as const;
export type OrphanReason = (typeof orphanReasons)[number];

export interface Orphan {
  reason: OrphanReason;
  /** content, ingest, snapshot, lease, image, directory, cache record. */
  kind: string;
  /** '' if it belongs to no namespace. */
  namespace: string;
  name: string;
  bytes: number;
  /** Its last known change. */
  since?: Instant;
  path?: string;
  /** The command that removes it; there may be none. */
  command?: string;
}
