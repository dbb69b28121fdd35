/**
 * Lines about the whole store: what is kept, what can be removed, since when, and the disk. The same after
 * `du`, `gc --dry-run` and `gc --plan`.
 */
import { type DiskReport, reclaimable } from '../../gc/report/disk-report.js';
import type { DatedObject } from '../../gc/report/oldest.js';
import type { UsageReport } from '../../gc/report/retained.js';
import { bytes, type Output, printable, shortTime } from './output.js';

export type StoreUsage = Pick<UsageReport, 'kept' | 'garbage' | 'disk' | 'oldestGarbage' | 'oldestLease'>;

/** The part of a report that is about the whole store. */
export function storeUsage({ kept, garbage, disk, oldestGarbage, oldestLease }: UsageReport): StoreUsage {
  return {
    kept,
    garbage,
    ...(disk && { disk }),
    ...(oldestGarbage && { oldestGarbage }),
    ...(oldestLease && { oldestLease }),
  };
}

export function printStore(out: Output, usage: StoreUsage): void {
  const { kept, garbage, disk } = usage;
  out.line(`the whole store: ${bytes(kept)} kept, ${bytes(garbage)} garbage`);
  if (disk === undefined) return;
  printDisk(out, disk);
  out.line(`oldest garbage  ${dated(usage.oldestGarbage)}`);
  out.line(`oldest lease    ${dated(usage.oldestLease)}`);
  const { size, used, free } = disk.fileSystem;
  out.line(`file system     ${bytes(size)}, ${bytes(used)} used, ${bytes(free)} free`);
}

/** Lines that add up to the root's disk usage. */
function printDisk(out: Output, disk: DiskReport): void {
  const { root, total, lines } = disk;
  const parts: [string, number][] = [
    ['kept', lines.kept],
    ['garbage', lines.garbage],
    ['orphans', lines.orphans],
    ['unfinished', lines.unfinished],
    ['trash', lines.trash],
    ['damaged', lines.damaged],
    ['own files', lines.store],
    ...(lines.elsewhere === 0 ? [] : ([['elsewhere', lines.elsewhere]] satisfies [string, number][])),
    ['total', total],
  ];
  out.line();
  out.line(`disk under ${printable(root)}`);
  for (const [name, n] of parts) out.line(`  ${name.padEnd(11)} ${bytes(n).padStart(11)}  ${n}`);
  out.line();
  out.line(`reclaimable     ${bytes(reclaimable(disk))}: garbage, and orphans with gc --full`);
}

const dated = (object: DatedObject | undefined): string =>
  object === undefined
    ? 'none'
    : printable(`${shortTime(object.at)}  ${object.kind} ${object.key} in ${object.namespace}`);
