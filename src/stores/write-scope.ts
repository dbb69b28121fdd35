/**
 * What a writing call holds until its record is visible: shares of guards, and marks of backend objects in
 * flight. Called by the content and snapshot stores.
 *
 * In a transaction of the caller's (context transaction) the record becomes visible when that one commits, so
 * everything is held until then, or until it has failed for good; across its conflicts it is taken once.
 */
import type { CallContext } from '../context.js';
import type { Transaction } from '../engine/contract.js';
import { failedPrecondition, openedReadOnly } from '../errors.js';
import type { Release } from './guards.js';
import type { StoreHost } from './host.js';

/**
 * The checks of `StoreHost.update`, for calls that use a backend before their transaction: closed store,
 * aborted signal, read-only store, ended or read-only context transaction.
 */
export function beginWrite(host: StoreHost, ctx: CallContext): void {
  host.checkCall(ctx);
  if (host.engine.isReadOnly) throw openedReadOnly();
  if (ctx.tx !== undefined && !ctx.tx.writable) {
    throw failedPrecondition('the transaction is read-only', { remedy: 'use update instead of view' });
  }
}

export class WriteScope {
  readonly #host: StoreHost;
  readonly #ctx: CallContext;
  readonly #releases: Release[] = [];

  constructor(host: StoreHost, ctx: CallContext) {
    this.#host = host;
    this.#ctx = ctx;
  }

  /** Shares a guard: no sweep removes the object until the release. */
  share(guard: string): Promise<void> {
    return this.#take(`share ${guard}`, () => this.#host.guards.share(guard));
  }

  /** Counts a backend name among those that have no record yet. */
  mark(names: InFlight, name: string): Promise<void> {
    return this.#take(`in flight ${name}`, async () => names.add(name));
  }

  /** Releases everything, unless a context transaction still needs it. */
  release(): void {
    for (const release of this.#releases.splice(0)) release();
  }

  async #take(name: string, take: () => Promise<Release>): Promise<void> {
    const tx = this.#ctx.tx;
    if (tx === undefined) {
      this.#releases.push(await take());
      return;
    }
    const release = await tx.once(name, take, async (taken) => taken());
    tx.onCommit(release);
  }
}

/** Counts backend names between the backend call that creates them and the record that names them. */
export class InFlight {
  readonly #counts = new Map<string, number>();

  add(name: string): Release {
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
    let done = false;
    return () => {
      if (done) return;
      done = true;
      const left = (this.#counts.get(name) ?? 0) - 1;
      if (left > 0) this.#counts.set(name, left);
      else this.#counts.delete(name);
    };
  }

  /** A copy: later changes do not show in it. */
  names(): ReadonlySet<string> {
    return new Set(this.#counts.keys());
  }
}

/**
 * A value created once for one use in a transaction, and returned again to that use when the transaction runs
 * again after a conflict. A second use of the same name within one run gets a value of its own. `undo` runs
 * when the transaction fails for good. In the value the use records what it has done in the backend.
 */
export async function keptOverAttempts<T extends object>(
  tx: Transaction,
  name: string,
  make: () => T,
  undo: (value: T) => Promise<void>,
): Promise<T> {
  for (let n = 1; ; n++) {
    const kept = await tx.once(
      `${name} ${n}`,
      async () => ({ value: make(), attempt: 0 }),
      ({ value }) => undo(value),
    );
    if (kept.attempt === tx.attempt) continue;
    kept.attempt = tx.attempt;
    return kept.value;
  }
}
