/**
 * Commits transactions to etcd. Called by engine.ts.
 *
 * Every commit is one etcd transaction that compares what was read (plan.ts), that no unit is being applied
 * (`sys/gate`), and this host's key (`sys/host/…`); it writes its changes and a record of itself into a slot of this
 * host (`sys/commit/…`). When the response is lost, the host's key is rewritten first: a request that is still on its
 * way fails its comparison from then on, so what the slot says is final.
 *
 * More than etcd takes at once is a unit: its changes are staged below `sys/unit`, the gate is closed so that no host
 * commits, what was read is checked once more, and one small transaction that marks the gate decides. From that
 * revision on every mirror shows all of it. The changes are then applied in batches and the gate is taken away, by
 * any host if this one dies. Only units block others, and only for as long as they are applied.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { failedPrecondition, OutcomeUnknown, throwIfAborted } from '../../../errors.js';
import type { Compare, EtcdClient, Op, TxnResult } from '../client/client.js';
import { prefixEnd } from '../client/client.js';
import { EtcdFailure } from '../client/failure.js';
import type { Fence } from '../cluster/locks.js';
import { hostOfId } from '../cluster/members.js';
import type { Session, SessionState } from '../cluster/session.js';
import { chunkName, fetchUnit, type Gate, parseGate } from '../format/gate.js';
import { DIRTY, plainPart, Sys, unitOf } from '../format/layout.js';
import { type StagedChange, stage } from '../format/unit.js';
import type { Mirror } from '../mirror/mirror.js';
import { batchesOf, type CommitPlan, opsOf, type PlanParts, planCommit } from './plan.js';
import type { EtcdTransaction } from './transaction.js';

/** etcd's defaults are 128 operations (conditions are counted apart) and 1.5 MiB. */
const OPS_MAX = 128;
const BYTES_MAX = 1_300_000;
const BATCH_BYTES = 512 * 1024;
/** A unit that was decided and is not applied after so long is finished by a host that waits for it. */
const HELP_AFTER_MS = 1_500;

/** The gate, closed for one transaction. */
export interface ClosedGate {
  readonly revision: number;
  /** Opens it, unless its commit has done so. */
  open(): Promise<void>;
}

export interface CommitterParts extends PlanParts {
  session: Session;
  mirror: Mirror;
}

export class Committer {
  readonly #parts: CommitterParts;
  readonly #client: EtcdClient;
  readonly #session: Session;
  readonly #mirror: Mirror;
  readonly #slots = new Set<number>();
  #sequence = 0;
  readonly #nonce = `${process.pid.toString(36)}-${Date.now().toString(36)}`;
  /** Compared by transactions that ask the graph for garbage. */
  fence: Fence | undefined;
  /** For the test that must lose an object without it. */
  fencing = true;
  /** For tests that stop the host between the decision to remove garbage and its commit. */
  beforeGarbage: (() => Promise<void> | void) | undefined;

  constructor(parts: CommitterParts) {
    this.#parts = parts;
    this.#client = parts.client;
    this.#session = parts.session;
    this.#mirror = parts.mirror;
  }

  /**
   * The revision of the commit; undefined: a conflict, run again. `isStale` asks the mirror; `closed` is the gate, when
   * this host has closed it for the transaction.
   */
  async commit(
    tx: EtcdTransaction,
    isStale: () => boolean,
    signal: AbortSignal | undefined,
    closed?: ClosedGate,
  ): Promise<number | undefined> {
    const plan = await planCommit(this.#parts, tx);
    const compares = tx.readsGraph && !this.fencing ? [] : [...plan.compares];
    for (const { key, create } of this.#guardsOf(tx))
      compares.push({ key, is: 'created at', revision: create });
    if (tx.readsGraph) await this.beforeGarbage?.();
    const ops = opsOf(this.#parts, plan.changes);
    const extra = this.#extraOps(tx, plan);
    // Beside these: the slot and perhaps the gate; the gate and the host's key among the conditions.
    const fits = ops.length + extra.length + 2 <= OPS_MAX && compares.length + 2 <= OPS_MAX;
    if (fits && plan.bytes <= BYTES_MAX)
      return this.#commitAtOnce(tx, plan, compares, [...ops, ...extra], signal, closed);
    await closed?.open();
    return this.#commitUnit(tx, plan, extra, isStale, signal);
  }

  /**
   * Closes the gate for one transaction that kept losing to others, and brings the mirror up to it: what is read from
   * then on stays true until it is opened, or until this host's session ends. For short bodies only.
   */
  async closeGate(signal: AbortSignal | undefined): Promise<ClosedGate | undefined> {
    const session = await this.#session.current();
    const revision = await this.#putGate(this.#newId(), 0, session, signal);
    if (revision === undefined) return undefined;
    const open = async (): Promise<void> => {
      const own: Compare = { key: Sys.gate, is: 'modified at', revision };
      await this.#insist([own], [{ del: Sys.gate }]).catch(() => undefined);
    };
    try {
      if (await this.#hasSeen(revision, signal)) return { revision, open };
    } catch (error) {
      await open();
      throw error;
    }
    await open();
    return undefined;
  }

  /**
   * Whether the mirror comes to the revision of a gate in the time that a request may take. All hosts wait as long as a
   * gate stands, and it stands as long as its host lives: one that does not see its own takes it away.
   */
  async #hasSeen(revision: number, signal: AbortSignal | undefined): Promise<boolean> {
    const late = AbortSignal.timeout(this.#client.settings.requestTimeoutMs);
    try {
      await this.#mirror.reach(revision, signal === undefined ? late : AbortSignal.any([signal, late]));
      return true;
    } catch (error) {
      if (late.aborted && signal?.aborted !== true) return false;
      throw error;
    }
  }

  /** The gate as etcd has it, waited for until it is gone; finishes a unit whose host does not. */
  async passGate(signal?: AbortSignal): Promise<void> {
    const since = performance.now();
    for (;;) {
      throwIfAborted(signal);
      const { kvs } = await this.#client.range(Sys.gate);
      const gate = kvs[0] && parseGate(kvs[0]);
      if (gate === undefined) return;
      if (gate.state === 'flipped' && performance.now() - since > HELP_AFTER_MS) {
        await this.#applyUnit(gate, await fetchUnit(this.#client, gate));
      } else {
        await this.#mirror.gateChange(200);
      }
    }
  }

  #extraOps(tx: EtcdTransaction, plan: CommitPlan): Op[] {
    const ops: Op[] = [...plan.counters];
    if (plan.addsReferences) ops.push({ put: Sys.head, value: this.#client.settings.hostId });
    if (tx.deletions > 0) {
      ops.push({ put: DIRTY, value: String(this.#mirror.deletionsTotal + tx.deletions) });
    }
    return ops;
  }

  // ----------------------------------------------------------------------------------------------- at once

  async #commitAtOnce(
    tx: EtcdTransaction,
    plan: CommitPlan,
    compares: readonly Compare[],
    ops: readonly Op[],
    signal: AbortSignal | undefined,
    closed: ClosedGate | undefined,
  ): Promise<number | undefined> {
    const session = await this.#session.current();
    const slot = this.#takeSlot();
    const id = this.#newId();
    try {
      const slotKey = Sys.commit(this.#client.settings.hostId, slot);
      const record: Op = { put: slotKey, value: commitRecord(id, tx, plan, this.fencing ? plan.gone : 0) };
      const isFenced = this.fencing || !tx.readsGraph;
      const gate: Compare =
        closed === undefined
          ? { key: Sys.gate, is: 'absent' }
          : { key: Sys.gate, is: 'modified at', revision: closed.revision };
      const fences = isFenced ? [gate, hostCompare(this.#client, session)] : [];
      const down: Op[] = closed === undefined ? [] : [{ del: Sys.gate }];
      const result = await this.#decide(id, slot, [...compares, ...fences], [...ops, record, ...down]);
      if (typeof result === 'number') return result;
      if (result !== undefined) await this.#refused(result, session, signal, closed);
      return undefined;
    } finally {
      this.#slots.delete(slot);
    }
  }

  /**
   * Puts a key that goes with an etcd lease. A commit like any other, so that no unit that is being applied overwrites
   * it and readers see it. NotFound: no such lease.
   */
  async putLeased(put: string, value: string, lease: string): Promise<void> {
    for (;;) {
      const session = await this.#session.current();
      const slot = this.#takeSlot();
      const id = this.#newId();
      try {
        const slotKey = Sys.commit(this.#client.settings.hostId, slot);
        const compares: Compare[] = [{ key: Sys.gate, is: 'absent' }, hostCompare(this.#client, session)];
        const ops: Op[] = [
          { put, value, lease },
          { put: slotKey, value: JSON.stringify({ id }) },
        ];
        const result = await this.#decide(id, slot, compares, ops);
        if (typeof result === 'number') return await this.#mirror.reach(result);
        if (result !== undefined) await this.#refused(result, session, undefined, undefined);
      } finally {
        this.#slots.delete(slot);
      }
    }
  }

  /** Sends a deciding transaction; its revision, its refusal, or undefined when it was found not to have happened. */
  async #decide(
    id: string,
    slot: number,
    compares: readonly Compare[],
    ops: readonly Op[],
  ): Promise<number | TxnResult | undefined> {
    try {
      const result = await this.#client.txn(compares, ops, [
        { get: Sys.gate },
        { get: Sys.host(this.#client.settings.hostId) },
        // How far the mirror has to come before another run can do better.
        { get: Sys.commits, end: prefixEnd(Sys.commits), newest: true },
      ]);
      return result.succeeded ? result.revision : result;
    } catch (error) {
      if (!(error instanceof EtcdFailure) || !error.ambiguous) throw error;
      return this.#findOut(id, slot);
    }
  }

  /** Revision of a commit whose response was lost; undefined: it has not happened and never will. */
  async #findOut(id: string, slot: number): Promise<number | undefined> {
    const until = performance.now() + this.#client.settings.operationTimeoutMs;
    for (let pause = 50; ; pause = Math.min(pause * 2, 1000)) {
      try {
        await this.#session.refence();
        const { kvs } = await this.#client.range(Sys.commit(this.#client.settings.hostId, slot));
        const found = kvs[0];
        if (found === undefined) return undefined;
        return (JSON.parse(found.value.toString('utf8')) as { id?: string }).id === id
          ? found.mod
          : undefined;
      } catch (error) {
        // A host that has lost its name cannot find out any more.
        if (performance.now() > until || !(error instanceof EtcdFailure)) {
          // The slot is never used again: what it says may matter still.
          this.#slots.add(slot + LOST_SLOTS);
          throw new OutcomeUnknown('etcd did not respond: whether the change was made is not known', {
            cause: error,
            remedy: 'look whether it is there when etcd responds again',
          });
        }
        await sleep(pause);
      }
    }
  }

  /** Looks into a refusal: a gate is waited for, an ended session is begun again. */
  async #refused(
    { gets }: TxnResult,
    session: SessionState,
    signal: AbortSignal | undefined,
    closed: ClosedGate | undefined,
  ): Promise<void> {
    const [gate, host, newest] = gets;
    if (host?.[0] !== undefined) this.#session.checkOwn(host[0]);
    if (host?.[0]?.mod !== session.fence) this.#session.expired(session.fence);
    if (gate?.[0] !== undefined && gate[0].mod !== closed?.revision) await this.passGate(signal);
    await this.#mirror.reach(newest?.[0]?.mod ?? 0, signal);
  }

  /**
   * A transaction under a lock that was lost must not run again as if it still had it, whatever made this attempt end.
   * FailedPrecondition, or the guard's own error.
   */
  async checkGuards(tx: EtcdTransaction): Promise<void> {
    for (const { key, create, lost } of this.#guardsOf(tx)) {
      const { kvs } = await this.#client.range(key);
      if ((kvs[0]?.create ?? 0) === create) continue;
      if (lost !== undefined) throw lost();
      throw failedPrecondition('session expired: the lock that protects the transaction was lost', {
        object: key,
        remedy: 'take the lock again and start over',
      });
    }
  }

  #guardsOf(tx: EtcdTransaction): readonly Fence[] {
    const { fence } = this;
    return tx.readsGraph && this.fencing && fence !== undefined ? [...tx.guards, fence] : tx.guards;
  }

  #takeSlot(): number {
    for (let slot = 0; ; slot++) {
      if (this.#slots.has(slot) || this.#slots.has(slot + LOST_SLOTS)) continue;
      this.#slots.add(slot);
      return slot;
    }
  }

  #newId(): string {
    return `${this.#client.settings.hostId}-${this.#nonce}-${++this.#sequence}`;
  }

  // ------------------------------------------------------------------------------------------------ as a unit

  async #commitUnit(
    tx: EtcdTransaction,
    plan: CommitPlan,
    extra: readonly Op[],
    isStale: () => boolean,
    signal: AbortSignal | undefined,
  ): Promise<number | undefined> {
    const id = this.#newId();
    const chunks = stage(plan.changes);
    const dir = Sys.unit(id);
    for (const [n, value] of chunks.entries()) {
      await this.#insist([], [{ put: dir + chunkName(n), value }]);
    }
    let opened: number | undefined;
    let applied = false;
    try {
      const session = await this.#session.current();
      opened = await this.#putGate(id, chunks.length, session, signal);
      if (opened === undefined) return undefined;
      if (!(await this.#hasSeen(opened, signal)) || isStale()) return undefined;
      const decided = await this.#flip(tx, plan, extra, id, chunks.length, opened, session);
      if (decided === undefined) return undefined;
      const gate: Gate = { id, state: 'flipped', create: opened, mod: decided, chunks: chunks.length };
      await this.#applyUnit(gate, plan.changes);
      applied = true;
      return decided;
    } finally {
      if (!applied) await this.#withdraw(id, opened);
    }
  }

  /** Takes back what a unit that was not decided has put up. */
  async #withdraw(id: string, opened: number | undefined): Promise<void> {
    if (opened !== undefined) {
      const open: Compare = { key: Sys.gate, is: 'modified at', revision: opened };
      await this.#insist([open], [{ del: Sys.gate }]).catch(() => undefined);
    }
    await this.#dropStage(id).catch(() => undefined);
  }

  /** Puts up the closed gate; its revision, or undefined when the session has ended. */
  async #putGate(
    id: string,
    chunks: number,
    session: SessionState,
    signal: AbortSignal | undefined,
  ): Promise<number | undefined> {
    const value = JSON.stringify({ id, state: 'open', chunks });
    for (;;) {
      let result: TxnResult;
      try {
        result = await this.#client.txn(
          [{ key: Sys.gate, is: 'absent' }, hostCompare(this.#client, session)],
          [{ put: Sys.gate, value, lease: session.lease }],
          [{ get: Sys.gate }, { get: Sys.host(this.#client.settings.hostId) }],
        );
      } catch (error) {
        if (error instanceof EtcdFailure && error.kind === 'NotFound') {
          this.#session.leaseGone(session.lease);
          return undefined;
        }
        if (!(error instanceof EtcdFailure) || !error.ambiguous) throw error;
        await this.#session.refence();
        const { kvs } = await this.#client.range(Sys.gate);
        const gate = kvs[0] && parseGate(kvs[0]);
        return gate?.id === id ? gate.create : undefined;
      }
      if (result.succeeded) return result.revision;
      const [gate, host] = result.gets;
      if (gate?.[0] === undefined) {
        if (host?.[0] !== undefined) this.#session.checkOwn(host[0]);
        if (host?.[0]?.mod !== session.fence) this.#session.expired(session.fence);
        return undefined;
      }
      await this.passGate(signal);
    }
  }

  async #flip(
    tx: EtcdTransaction,
    plan: CommitPlan,
    extra: readonly Op[],
    id: string,
    chunks: number,
    opened: number,
    session: SessionState,
  ): Promise<number | undefined> {
    const slot = this.#takeSlot();
    try {
      const compares: Compare[] = [
        { key: Sys.gate, is: 'modified at', revision: opened },
        hostCompare(this.#client, session),
        // Another host may have taken this one for dead, and what it staged away.
        { key: Sys.unit(id) + chunkName(0), is: 'present' },
        // The mirror knows what was read, but not these.
        ...[...tx.handedOut].map(([counter, handed]) => this.#parts.counters.compare(counter, handed)),
      ];
      if (tx.readsGraph && this.fencing) {
        compares.push({ key: Sys.head, is: 'unchanged since', revision: tx.etcdRevision });
      }
      for (const { key, create } of this.#guardsOf(tx)) {
        compares.push({ key, is: 'created at', revision: create });
      }
      const result = await this.#decide(id, slot, compares, [
        ...extra,
        { put: Sys.gate, value: JSON.stringify({ id, state: 'flipped', chunks }) },
        { put: Sys.commit(this.#client.settings.hostId, slot), value: commitRecord(id, tx, plan) },
      ]);
      return typeof result === 'number' ? result : undefined;
    } finally {
      this.#slots.delete(slot);
    }
  }

  /** Applies a decided unit in batches and takes the gate away; any number of hosts may do so at once. */
  async #applyUnit(gate: Gate, changes: readonly StagedChange[]): Promise<void> {
    const decided: Compare = { key: Sys.gate, is: 'modified at', revision: gate.mod };
    for (const ops of batchesOf(opsOf(this.#parts, changes), OPS_MAX - 1, BATCH_BYTES)) {
      if (!(await this.#insist([decided], ops))) return;
    }
    const dir = Sys.unit(gate.id);
    await this.#insist([decided], [{ del: Sys.gate }, { del: dir, end: prefixEnd(dir) }]);
  }

  /** Takes what a unit has staged away, all at once, unless the unit has come to the gate. */
  async #dropStage(id: string): Promise<void> {
    const dir = Sys.unit(id);
    for (;;) {
      const { kvs, revision } = await this.#client.range(Sys.gate);
      if (kvs[0] !== undefined && parseGate(kvs[0])?.id === id) return;
      const still: Compare = { key: Sys.gate, is: 'unchanged since', revision };
      if (await this.#insist([still], [{ del: dir, end: prefixEnd(dir) }])) return;
    }
  }

  /** Removes what hosts that died have staged and never decided. */
  async dropAbandonedStages(): Promise<void> {
    const { kvs } = await this.#client.range(Sys.units, { end: prefixEnd(Sys.units), keysOnly: true });
    if (kvs.length === 0) return;
    const { hostId } = this.#client.settings;
    const hosts = await this.#client.range(Sys.hosts, { end: prefixEnd(Sys.hosts), keysOnly: true });
    const alive = new Set(hosts.kvs.map(({ key }) => plainPart(key.slice(Sys.hosts.length))));
    const ids = new Set(kvs.map(({ key }) => unitOf(key)));
    for (const id of ids) {
      const host = hostOfId(id);
      // This host's own are those of an earlier process.
      if (host === hostId ? id.includes(this.#nonce) : alive.has(host)) continue;
      await this.#dropStage(id);
    }
  }

  /** Sends what may be sent twice, until etcd responds; false when the conditions are not met. */
  async #insist(compares: readonly Compare[], ops: readonly Op[]): Promise<boolean> {
    const until = performance.now() + this.#client.settings.operationTimeoutMs;
    for (let pause = 20; ; pause = Math.min(pause * 2, 1000)) {
      try {
        return (await this.#client.txn(compares, ops)).succeeded;
      } catch (error) {
        if (!(error instanceof EtcdFailure) || !error.ambiguous || performance.now() > until) throw error;
        await sleep(pause);
      }
    }
  }

  /** Takes this host's slots away, leaving a newer record so that no host mistakes the tree for an older one. */
  async close(): Promise<void> {
    const { hostId } = this.#client.settings;
    const dir = Sys.commitsOf(hostId);
    await this.#client.txn(
      [],
      [
        { put: `${Sys.commits}%closed`, value: JSON.stringify({ id: hostId }) },
        { del: dir, end: prefixEnd(dir) },
      ],
    );
  }
}

/** Slots of commits whose outcome is unknown are kept apart by this distance. */
const LOST_SLOTS = 1_000_000;

const hostCompare = (client: EtcdClient, { fence }: SessionState): Compare => ({
  key: Sys.host(client.settings.hostId),
  is: 'modified at',
  revision: fence,
});

function commitRecord(id: string, tx: EtcdTransaction, { again }: CommitPlan, gone = 0): string {
  return JSON.stringify({
    id,
    ...(gone > 0 && { gone }),
    ...(tx.readsGraph && { garbage: true }),
    ...(again.length > 0 && { again }),
    ...(tx.deletions > 0 && { deletions: tx.deletions }),
  });
}
