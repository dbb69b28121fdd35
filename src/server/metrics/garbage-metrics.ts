/** Metrics of what is garbage now, and of the marks that say so. Called by metrics.ts. */
import { Counter, Gauge, type Registry } from 'prom-client';
import type { DB } from '../../db.js';
import type { GarbageNow } from '../../gc/report/garbage-now.js';

const SECONDS = 1000;

export function watchGarbage(registry: Registry, db: DB): void {
  // Begins to note when things become garbage.
  void db.garbageWatch;
  let reading: Promise<GarbageNow | undefined> | undefined;
  // All gauges of a scrape share one answer.
  const read = (): Promise<GarbageNow | undefined> => {
    reading ??= db
      .garbage()
      .catch(() => undefined)
      .finally(() => {
        reading = undefined;
      });
    return reading;
  };
  new Gauge({
    name: 'ebbtide_garbage',
    help: 'Objects that nothing keeps now, by kind; absent before the first collection',
    labelNames: ['kind'] as const,
    registers: [registry],
    async collect() {
      const garbage = await read();
      this.reset();
      for (const [kind, n] of Object.entries(garbage?.objects ?? {})) this.set({ kind }, n);
    },
  });
  const gauge = (name: string, help: string, of: (garbage: GarbageNow) => number): void => {
    new Gauge({
      name,
      help,
      registers: [registry],
      async collect() {
        const garbage = await read();
        if (garbage === undefined) this.remove();
        else this.set(of(garbage));
      },
    });
  };
  gauge(
    'ebbtide_garbage_blob_bytes',
    'Bytes of the blobs that nothing keeps now; an estimate beyond 10,000 blobs',
    ({ blobBytes }) => blobBytes,
  );
  gauge(
    'ebbtide_garbage_age_seconds',
    'Time for which the oldest object that nothing keeps has been so',
    ({ ageMs }) => ageMs / SECONDS,
  );
  new Counter({
    name: 'ebbtide_marks_checks_total',
    help: 'Comparisons of the marks that live on with a count anew, by outcome: wrong is an alarm',
    labelNames: ['outcome'] as const,
    registers: [registry],
    collect() {
      const { checks, alarms } = db.marksChecked;
      this.reset();
      this.inc({ outcome: 'right' }, checks - alarms);
      this.inc({ outcome: 'wrong' }, alarms);
    },
  });
}
