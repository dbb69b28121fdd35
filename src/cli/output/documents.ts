/**
 * What `--json` prints where that is not the library's own object, with the field names of
 * docs/ebbtide.schema.json: times end in `At`, durations in `Ms`, and keys of objects are `key` everywhere.
 */
import type { SnapshotInfo } from '../../backends/contract.js';
import type { HostInfo } from '../../cluster-hosts.js';
import type { UsageReport } from '../../gc/report/retained.js';
import type { LeaseOwner, Why, WhyStep } from '../../gc/report/why.js';
import type { GCStats } from '../../gc/stats.js';
import { Label } from '../../model/labels.js';
import { type Instant, parseTimestamp } from '../../model/time.js';
import type { Lease } from '../../stores/leases.js';
import type { Cached } from '../foreign-store.js';

export const snapshotDocument = ({
  name: key,
  created: createdAt,
  updated: updatedAt,
  ...rest
}: SnapshotInfo) => ({
  key,
  ...rest,
  createdAt,
  updatedAt,
});

export function collectionDocument(stats: GCStats) {
  const { metaD: metadataMs, contentD: contentMs, snapshotD: snapshotsMs, ...rest } = stats;
  const { pauseMax: pauseMaxMs, pauseTotal: pauseTotalMs, phases: phasesMs, ...counted } = rest;
  const { elapsed: _, wouldRemove: __, ...document } = counted;
  return { ...document, pauseMaxMs, pauseTotalMs, phasesMs, metadataMs, contentMs, snapshotsMs };
}

export const hostDocument = ({ since: joinedAt, seen: seenAt, ...host }: HostInfo) => ({
  ...host,
  joinedAt,
  seenAt,
});

const ownerDocument = ({ seen: seenAt, ...owner }: LeaseOwner) => ({ ...owner, seenAt });

export const whyDocument = ({ paths, ...why }: Why) => ({
  ...why,
  paths: paths.map((steps) =>
    steps.map(({ host, ...step }: WhyStep & Cached) => ({
      ...step,
      ...(host && { host: ownerDocument(host) }),
    })),
  ),
});

export const usageDocument = ({ rows, ...report }: UsageReport) => ({
  ...report,
  rows: rows.map(({ host, ...row }: UsageReport['rows'][number] & Cached) => ({
    ...row,
    ...(host && { host: ownerDocument(host) }),
  })),
});

/** With its expiry, which is stored as a label. */
export function leaseDocument(lease: Lease): Lease & { expiresAt?: Instant } {
  const expiresAt = parseTimestamp(lease.labels[Label.gcExpire] ?? '');
  return { ...lease, ...(expiresAt !== undefined && { expiresAt }) };
}
