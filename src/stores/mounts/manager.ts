/**
 * The mount manager: mounts that are activated under a name, as containerd 2.2 has it. Called by db.ts and the daemon.
 *
 * An activation is a record and a directory with mount points (backends/mount-points.ts). The record is there first, without
 * saying where it is mounted; then come the mounts; then the record says that all are there. It goes before its mounts do. So
 * whatever a crash interrupts, what is mounted without a record, and a record without its mounts, are told from the rest, and
 * `sweep` puts them right. While an activation is made or ended, its directory's guard is held; a name has one call at a time.
 *
 * A collection removes records that no lease, label or back reference keeps; its sweep unmounts them.
 */
import { randomBytes } from 'node:crypto';
import type { Mount } from '../../backends/contract.js';
import { checkMountable, type MountPoints, mountPlace } from '../../backends/mount-points.js';
import { type CallContext, requireNamespace } from '../../context.js';
import type { Key, Reader } from '../../engine/contract.js';
import { checkComponent, key, leaf, mountKey, namespaceOf } from '../../engine/schema/keys.js';
import {
  alreadyExists,
  type EbbtideError,
  failedPrecondition,
  notFound,
  notImplemented,
  OutcomeUnknown,
  unavailable,
} from '../../errors.js';
import { adaptLabels, parseFilters } from '../../model/filters.js';
import { compactMap, validateLabels } from '../../model/labels.js';
import type { ActiveMountFields, MountRecord, StringMap } from '../../model/records.js';
import { now } from '../../model/time.js';
import { messageOf } from '../../system/system-errors.js';
import { ensureNamespace, putRecord, readRecord, scanRecords, updateTime } from '../common.js';
import { mountGuard, mountNameGuard } from '../guards.js';
import { addToLease } from '../lease-context.js';
import { Pace } from '../listing.js';
import { beginWrite } from '../write-scope.js';
import { type Activation, activationOf, dropMount, fieldsOf, isGone, isOwn } from './records.js';
import { leftovers, type MountHost, sweepMounts } from './sweep.js';
import { type MountedBefore, type PlannedMount, planActivation, transformed } from './transforms.js';

/** How mounts are activated. */
export interface ActivateOptions {
  /** Labels by key. */
  labels?: StringMap | undefined;
  /** Everything is mounted; what is left to the caller is one bind mount. */
  temporary?: boolean | undefined;
}

/** The mounts that are active. */
export class MountManager {
  readonly #host: MountHost;

  constructor(host: MountHost) {
    this.#host = host;
  }

  /**
   * Mounts what the caller cannot or need not mount itself: everything up to the last mount whose type has a transformer
   * (`format/`, `mkdir/`), or all with `temporary`. It stays until it is deactivated, or until a collection finds that nothing keeps
   * it: the context's lease, a label `containerd.io/gc.ref.mount` of another object, or what its labels
   * `containerd.io/gc.bref.…` name.
   *
   * AlreadyExists: the name is in use. NotImplemented: nothing needs to be mounted, or the message names what cannot be.
   * InvalidArgument. FailedPrecondition without the right to mount, or in a context transaction.
   */
  async activate(
    ctx: CallContext,
    name: string,
    mounts: readonly Mount[],
    options: ActivateOptions = {},
  ): Promise<Activation> {
    const ns = requireNamespace(ctx);
    checkComponent(name, 'name of a mount');
    validateLabels(options.labels);
    const points = this.#begin(ctx);
    const plan = planActivation(mounts, options.temporary === true);
    for (const { mount } of plan.perform) checkMountable(mount);
    const { guards } = this.#host;
    return guards.with(mountNameGuard(ns, name), async () => {
      const at = now();
      const labels = compactMap(options.labels);
      const directory = randomBytes(8).toString('hex');
      const host = this.#host.engine.shared?.hostId;
      const begun: MountRecord = {
        createdat: at,
        updatedat: at,
        ...(labels && { labels }),
        directory,
        ...(host !== undefined && { host }),
        ...(ctx.lease && { lease: ctx.lease }),
      };
      const call: ActivateCall = { ctx, key: mountKey(ns, name), begun, points };
      return guards.with(mountGuard(directory), async () => {
        await this.#enter(call);
        try {
          const { active, system } = mountAll(call, plan.perform, plan.rest, options.temporary === true);
          return activationOf(points, name, await this.#complete(call, active, system));
        } catch (error) {
          await this.#takeBack(call, error);
          throw error;
        }
      });
    });
  }

  /** Unmounts it. NotFound. Unavailable while a process uses a mount: the name is free, and a later collection unmounts it. */
  async deactivate(ctx: CallContext, name: string): Promise<void> {
    const ns = requireNamespace(ctx);
    const points = this.#begin(ctx);
    const { guards } = this.#host;
    await guards.with(mountNameGuard(ns, name), async () => {
      const { directory } = await this.#host.update(ctx, (tx) => {
        const record = this.#own(tx, ns, name);
        dropMount(tx, mountKey(ns, name), record);
        return record;
      });
      await guards.with(mountGuard(directory), async () => points.remove(directory));
    });
  }

  /** NotFound. */
  async info(ctx: CallContext, name: string): Promise<Activation> {
    const ns = requireNamespace(ctx);
    return this.#host.read(ctx, (reader) => {
      const record = this.#own(reader, ns, name);
      return activationOf(this.#points, name, record);
    });
  }

  /** This host's active mounts that match any of the filters, by name. InvalidArgument: a malformed filter. */
  async list(ctx: CallContext, ...filters: string[]): Promise<Activation[]> {
    const ns = requireNamespace(ctx);
    const matches = parseFilters(filters);
    return this.#host.read(ctx, async (reader) => {
      const found: Activation[] = [];
      const pace = new Pace(ctx);
      for (const [k, record] of scanRecords<MountRecord>(reader, key('mounts', ns))) {
        const name = leaf(k);
        const adapt = ([field, ...path]: readonly string[]) =>
          field === 'name' ? name : field === 'labels' ? adaptLabels(record.labels, path) : undefined;
        if (isOwn(this.#host, record) && matches(adapt)) found.push(activationOf(this.#points, name, record));
        if (pace.isOver) await pace.pass();
      }
      return found;
    });
  }

  /**
   * Unmounts what no record names, and removes the records of what is not mounted any more: after a crash, a restart of the machine, or
   * an unmount by somebody else. Activations under way are left alone; of a store that seems to have lost its metadata all that no record names
   * is. Returns
   * what went wrong, as one line each. Called when a daemon starts, and by collections.
   */
  sweep(): Promise<string[]> {
    return sweepMounts(this.#host);
  }

  /** What a sweep would put right now: keys of records, and directories of what is mounted without one. */
  leftovers(): { gone: Key[]; unnamed: string[] } {
    return leftovers(this.#host);
  }

  // ------------------------------------------------------------------------------------------------------- activation

  /** Enters the name. A record of it whose mounts are not there is replaced. */
  async #enter({ ctx, key: k, begun, points }: ActivateCall): Promise<void> {
    const stale = await this.#host.update(ctx, (tx) => {
      const known = readRecord<MountRecord>(tx, k);
      if (known !== undefined && !(isOwn(this.#host, known) && isGone(points, known))) {
        throw alreadyExists(`mount "${leaf(k)}" already exists`, { object: leaf(k) });
      }
      ensureNamespace(tx, namespaceOf(k));
      if (known !== undefined) dropMount(tx, k, known);
      putRecord(tx, k, begun);
      addToLease(tx, ctx, namespaceOf(k), k);
      return known?.directory;
    });
    // What stays of it has no record, and is left to the next sweep.
    if (stale !== undefined) {
      try {
        points.remove(stale);
      } catch (error) {
        this.#host.log('warn', 'a stale mount could not be removed', { error: messageOf(error) });
      }
    }
  }

  /** A collection may have taken the record meanwhile: nothing may keep it yet. */
  async #complete(
    { ctx, key: k, begun }: ActivateCall,
    active: MountRecord['active'],
    system: MountRecord['system'],
  ): Promise<MountRecord> {
    const whole: MountRecord = {
      ...begun,
      updatedat: updateTime(begun),
      place: mountPlace(),
      ...(active && { active }),
      ...(system && { system }),
    };
    await this.#host.update(ctx, (tx) => {
      const known = readRecord<MountRecord>(tx, k);
      if (known !== undefined && known.directory !== begun.directory) {
        throw unavailable(`mount "${leaf(k)}" was activated by another host meanwhile`, { object: leaf(k) });
      }
      ensureNamespace(tx, namespaceOf(k));
      putRecord(tx, k, whole);
      if (known === undefined) addToLease(tx, ctx, namespaceOf(k), k);
    });
    return whole;
  }

  /** Of a failed activation. What cannot be taken back is left to the next sweep. */
  async #takeBack({ key: k, begun, points }: ActivateCall, cause: unknown): Promise<void> {
    // Whether the record is whole will be seen.
    if (cause instanceof OutcomeUnknown) return;
    try {
      await this.#host.update({}, (tx) => {
        const known = readRecord<MountRecord>(tx, k);
        if (known?.directory === begun.directory) dropMount(tx, k, known);
      });
      points.remove(begun.directory);
    } catch (error) {
      this.#host.log('warn', 'a failed activation is cleaned up by the next collection', {
        name: leaf(k),
        error: messageOf(error),
      });
    }
  }

  // ---------------------------------------------------------------------------------------------------------- helpers

  #begin(ctx: CallContext): MountPoints {
    beginWrite(this.#host, ctx);
    if (ctx.tx !== undefined) {
      throw failedPrecondition('mounts are activated and deactivated outside of transactions', {
        remedy: 'call it before or after',
      });
    }
    return this.#points;
  }

  get #points(): MountPoints {
    const points = this.#host.mountPoints;
    if (points !== undefined) return points;
    throw notImplemented('this store has no directory for mounts', { remedy: 'open it with openDB' });
  }

  /** This host's record. NotFound. */
  #own(reader: Reader, ns: string, name: string): MountRecord {
    const record = name === '' ? undefined : readRecord<MountRecord>(reader, mountKey(ns, name));
    if (record !== undefined && isOwn(this.#host, record)) return record;
    throw mountNotFound(name, record?.host);
  }
}

interface ActivateCall {
  readonly ctx: CallContext;
  readonly key: Key;
  readonly begun: MountRecord;
  readonly points: MountPoints;
}

const mountNotFound = (name: string, host: string | undefined): EbbtideError =>
  notFound(host === undefined ? `mount "${name}" not found` : `mount "${name}" is one of host ${host}`, {
    object: name,
  });

/** Mounts one after the other: each may name what is mounted before it. In one step: nothing waits in between. */
function mountAll(
  { points, begun: { directory } }: ActivateCall,
  perform: readonly PlannedMount[],
  rest: readonly PlannedMount[],
  temporary: boolean,
): Pick<MountRecord, 'active' | 'system'> {
  points.create(directory);
  const active: Record<string, ActiveMountFields> = {};
  const before: MountedBefore[] = [];
  const make = (planned: PlannedMount): Mount =>
    transformed(planned, before, (index, below, how) =>
      points.makeDirectory(directory, index + 1, below, how),
    );
  for (const [i, planned] of perform.entries()) {
    const mount = make(planned);
    const mountid = points.mount(directory, i + 1, mount);
    active[i + 1] = { ...fieldsOf(mount), mountedat: now(), mountid };
    before.push({ ...mount, mountPoint: points.pathOf(directory, i + 1) });
  }
  const left = rest.map(make);
  const last = before.at(-1);
  if (temporary && last !== undefined)
    left.push({ type: 'bind', source: last.mountPoint, options: ['rbind'] });
  const system = Object.fromEntries(left.map((mount, i) => [String(i + 1), fieldsOf(mount)]));
  return { active, system };
}
