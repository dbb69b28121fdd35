/**
 * Backends in memory whose every call is a step of the schedule, before and after it has done its work, and whose
 * removals are shown to the judge at the very moment they happen. They fail now and then, when the schedule says so.
 */
import type {
  BackendWriter,
  ContentBackend,
  RemovalReport,
  SnapshotterBackend,
} from '../../src/backends/contract.js';
import { failedPrecondition, invalidArgument, unknownError } from '../../src/errors.js';
import { altered } from '../stores/store-world.js';
import type { FakeContent, FakeSnapshotter } from '../support/fake-backends.js';
import type { Random } from '../support/random.js';
import type { Mark, Marks } from './marks.js';
import type { Scheduler } from './scheduler.js';

/** Called with removals before they happen. */
export interface RemovalWatcher {
  blobGoes(digest: string): void;
  ingestGoes(ref: string): void;
  snapshotGoes(snapshotter: string, name: string): void;
  /** It goes on under another name, by the order in which they were made: its record may be found again after a death. */
  ingestIsCommitted(ref: string): void;
  snapshotIsCommitted(snapshotter: string, name: string): void;
}

export interface OneFault {
  readonly call: number;
  readonly when: 'before' | 'after';
}

/** Chances that a backend call fails: without effect, with it, or where it only looks. */
export interface Faults {
  before: number;
  after: number;
  look: number;
  /** Every call fails, as when the disk is gone. */
  outage: boolean;
  /** The only one that fails, by its number in the schedule, and when. */
  only?: OneFault | undefined;
}

/** As full disks, bad ones, those mounted read-only, and a process out of descriptors say. */
const errnos = ['ENOSPC', 'EIO', 'EROFS', 'EMFILE'];

export class Steps {
  readonly #scheduler: Scheduler;
  readonly #random: Random;
  readonly #faults: Faults;
  readonly #marks: Marks;
  /** Calls so far. */
  count = 0;

  constructor(scheduler: Scheduler, random: Random, faults: Faults, marks: Marks) {
    this.#scheduler = scheduler;
    this.#random = random;
    this.#faults = faults;
    this.#marks = marks;
  }

  /** A call that changes something: a step before it and one after. */
  async change<T>(name: string, work: () => Promise<T>): Promise<T> {
    const call = ++this.count;
    await this.#scheduler.step(name);
    this.#mayFail(name, { call, when: 'before' }, this.#faults.before, 'backend failed before its effect');
    const result = await work();
    await this.#scheduler.step(name);
    this.#mayFail(name, { call, when: 'after' }, this.#faults.after, 'backend failed after its effect');
    return result;
  }

  async look<T>(name: string, work: () => Promise<T>): Promise<T> {
    const call = ++this.count;
    await this.#scheduler.step(name);
    this.#mayFail(name, { call, when: 'before' }, this.#faults.look);
    return work();
  }

  #mayFail(name: string, { call, when }: OneFault, rate: number, mark?: Mark): void {
    const { outage, only } = this.#faults;
    const isOnly = only?.call === call && only.when === when;
    if (!outage && !isOnly && !this.#random.chance(rate)) return;
    if (mark) this.#marks.add(mark);
    if (this.#faults.outage) this.#marks.add('everything failed for a while');
    throw unknownError(`${name}: the disk says no (${this.#random.pick(errnos)})`);
  }
}

/** The content backend of a schedule over the bytes of `real`. */
export function scheduledContent(real: FakeContent, steps: Steps, watcher: RemovalWatcher): ContentBackend {
  const remove = (digest: string): Promise<void> => {
    if (real.blobs.has(digest)) watcher.blobGoes(digest);
    return real.delete(digest);
  };
  const changes: Partial<ContentBackend> = {
    info: (digest) => steps.look('content looks up a blob', () => real.info(digest)),
    delete: (digest) => steps.change('content removes a blob', () => remove(digest)),
    deleteMany: async (digests): Promise<RemovalReport> => {
      const report: RemovalReport = { removed: 0, bytes: 0, errors: [] };
      for (const digest of digests) {
        try {
          await steps.change('content removes a blob of many', () => remove(digest));
          report.removed++;
        } catch (error) {
          report.errors.push({ path: digest, message: String(error) });
        }
      }
      return report;
    },
    abort: (ref) =>
      steps.change('content aborts an ingest', () => {
        if (real.ingests.has(ref)) watcher.ingestGoes(ref);
        return real.abort(ref);
      }),
    walk: (fn) =>
      real.walk(async (info) => {
        await steps.look('content walks', async () => {});
        await fn(info);
      }),
    writer: (ref, desc) =>
      steps.change('content opens an ingest', async () =>
        writerOf(await real.writer(ref, desc), steps, watcher),
      ),
  };
  return altered<ContentBackend>(real, changes);
}

function writerOf(real: BackendWriter, steps: Steps, watcher: RemovalWatcher): BackendWriter {
  return altered<BackendWriter>(real, {
    commit: (size, expected) =>
      steps.change('content commits an ingest', () => {
        watcher.ingestIsCommitted(real.ref);
        return real.commit(size, expected);
      }),
    sync: () => steps.look('content syncs an ingest', () => real.sync()),
  });
}

function requireCommitted(real: FakeSnapshotter, parent: string): void {
  const kind = real.items.get(parent)?.kind;
  if (kind !== undefined && kind !== 'committed') throw invalidArgument(`parent ${parent} is not committed`);
}

/** A snapshotter of a schedule over the items of `real`. */
export function scheduledSnapshotter(
  name: string,
  real: FakeSnapshotter,
  steps: Steps,
  watcher: RemovalWatcher,
): SnapshotterBackend {
  return altered<SnapshotterBackend>(real, {
    prepare: (key, parent) =>
      steps.change('snapshotter prepares', async () => {
        requireCommitted(real, parent);
        return real.prepare(key, parent);
      }),
    view: (key, parent) =>
      steps.change('snapshotter makes a view', async () => {
        requireCommitted(real, parent);
        return real.view(key, parent);
      }),
    commit: (to, key) =>
      steps.change('snapshotter commits', async () => {
        if (real.items.get(key)?.kind !== 'active') throw failedPrecondition(`${key} is not active`);
        watcher.snapshotIsCommitted(name, key);
        await real.commit(to, key);
      }),
    remove: (key) =>
      steps.change('snapshotter removes', () => {
        if (real.items.has(key)) watcher.snapshotGoes(name, key);
        return real.remove(key);
      }),
    stat: (key) => steps.look('snapshotter looks up', () => real.stat(key)),
    cleanup: () => steps.look('snapshotter cleans up', () => real.cleanup()),
  });
}
