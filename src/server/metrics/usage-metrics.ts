/** Metrics of the store's disk usage: the lines of `ebbtide du`. Called by metrics.ts. */
import { Gauge, type Registry } from 'prom-client';
import { reclaimable } from '../../gc/report/disk-report.js';
import type { DatedObject } from '../../gc/report/oldest.js';
import type { MeasuredUsage, StoreUsage } from './store-usage.js';

const NANOS_PER_SECOND = 1e9;

/** Values by label; undefined if unknown or not applicable. */
type Values = Readonly<Record<string, number>> | number | undefined;

export function watchUsage(registry: Registry, usage: StoreUsage): void {
  const gauge = (name: string, help: string, read: () => Promise<Values>, label?: string): void => {
    new Gauge({
      name,
      help,
      labelNames: label === undefined ? [] : [label],
      registers: [registry],
      async collect() {
        const values = await read();
        this.reset();
        if (typeof values === 'number') this.set(values);
        else if (values === undefined) this.remove();
        else for (const [part, value] of Object.entries(values)) this.set({ [label ?? '']: part }, value);
      },
    });
  };
  const measured = (of: (result: MeasuredUsage) => Values) => async (): Promise<Values> => {
    const result = await usage.read();
    return result && of(result);
  };
  gauge(
    'ebbtide_disk_bytes',
    'Bytes of disk under the root, by what they are for; their sum is what du says',
    measured(({ report }) => report.disk?.lines),
    'part',
  );
  gauge(
    'ebbtide_reclaimable_bytes',
    'Bytes of disk that a full collection would free: garbage and orphans',
    measured(({ report }) => report.disk && reclaimable(report.disk)),
  );
  gauge(
    'ebbtide_oldest_garbage_timestamp_seconds',
    'When what has been garbage for longest expired, or was changed last; absent without garbage',
    measured(({ report }) => secondsOf(report.oldestGarbage)),
  );
  gauge(
    'ebbtide_oldest_lease_timestamp_seconds',
    'When the oldest lease that has not expired was made; absent without leases',
    measured(({ report }) => secondsOf(report.oldestLease)),
  );
  gauge(
    'ebbtide_disk_measured_timestamp_seconds',
    'When the disk was measured for these',
    measured(({ at }) => at),
  );
  gauge(
    'ebbtide_file_system_bytes',
    'Size of the file system of the root, used, and free for the daemon',
    () => usage.fileSystem(),
    'state',
  );
}

const secondsOf = (object: DatedObject | undefined): number | undefined =>
  object === undefined ? undefined : Number(object.at) / NANOS_PER_SECOND;
