/**
 * Stops a run that would remove a large part of a backend only because no record names it: more likely the metadata was
 * lost, set back or not mounted than all of that is garbage. On in every run, since no user asks for the removal of
 * orphans by name. Called by backend-sweeper.ts between a survey and the first removal.
 *
 * Some orphans are expected: items of records that this store removed itself (`accounted`), and the few that a crash
 * leaves. Of the others none may go while the tree is empty, or was empty when it was opened beside them, or is not the tree
 * they were written under (tree-mark.ts); else few may, or a small share of the backend.
 */
import type { ContentBackend, SnapshotterBackend } from '../../backends/contract.js';
import type { Engine } from '../../engine/contract.js';
import { key, metaKey } from '../../engine/schema/keys.js';
import { EbbtideError, failedPrecondition } from '../../errors.js';
import { type GuardLimits, guardLimits, type MassGuard } from './mass-guard.js';
import type { Survey } from './survey.js';
import { TreeMark } from './tree-mark.js';

/** Stricter than for records, of which a user removed the last reference. */
const DEFAULTS: GuardLimits = { maxShare: 0.5, floor: 20 };
/** How long the outcome of a refused survey stands in for another one. */
const REFUSAL_STANDS_MS = 3600 * 1000;
const REMEDY =
  'mount or restore the metadata and open the store again; look at `ebbtide gc --dry-run --full`; if these items are to go, ' +
  'confirm with `ebbtide gc --full --allow-mass-removal` or orphanGuard: false';

const CONTENT_REMEDY =
  'mount the content directory and open the store again; if it is lost, import or fetch the images again: that writes the blobs';

const SET_BACK = 'the metadata is older than the content, or that of another store: etcd was set back';

/** Present while the tree is one that was empty, or not that of the content, when it was opened beside a filled backend. */
const FOREIGN = metaKey('foreign');
const COLLECTIONS = [
  'namespaces',
  'images',
  'blobs',
  'snapshots',
  'containers',
  'leases',
  'ingests',
  'mounts',
  'sandboxes',
];

/** Unset and `true` mean the defaults, `false` consent. InvalidArgument for what is out of range. */
export const orphanLimits = (option: boolean | MassGuard | undefined): GuardLimits | undefined =>
  guardLimits('orphanGuard', option ?? true, DEFAULTS);

/** One surveyed backend. */
export interface Surveyed {
  /** `content`, or the snapshotter's name. */
  readonly backend: string;
  readonly survey: Survey;
  readonly accounted: number;
}

/** What is known of a store's orphans. */
export interface OrphanState {
  /**
   * The tree was empty when it was opened beside items that it does not name, older than them, or another store's; until a
   * run with consent.
   */
  foreign: boolean;
  /** Orphans that the guard kept when it last stopped a run. */
  kept: number;
}

interface OpenHost {
  readonly engine: Engine;
  readonly content: ContentBackend;
  readonly backends: ReadonlyMap<string, SnapshotterBackend>;
  log(level: 'info' | 'warn', message: string, details?: Readonly<Record<string, unknown>>): void;
}

/** What is known of the orphans of one open store. */
export class OrphanGuard {
  readonly #host: OpenHost;
  readonly #mark: TreeMark;
  #foreign = false;
  /** It was when the store was opened. */
  #contentLost = false;
  #refusal: { error: EbbtideError; at: number; kept: number } | undefined;

  constructor(host: OpenHost) {
    this.#host = host;
    this.#mark = new TreeMark(host.engine, host.content);
  }

  get state(): OrphanState {
    return { foreign: this.#foreign, kept: this.#refusal?.kept ?? 0 };
  }

  /** Called once when the store is opened: looks at the first item of each backend. */
  async lookAtOpen(): Promise<void> {
    const host = this.#host;
    const { engine } = host;
    this.#foreign = engine.has(FOREIGN);
    const doubt = await this.#doubt();
    if (!this.#foreign && doubt !== undefined && (await this.#filled()).length > 0) {
      this.#foreign = true;
      if (!engine.isReadOnly) await this.#noteForeign();
    } else await engine.shared?.setBackNoted();
    if (!this.#foreign) {
      this.#contentLost = await this.#isContentLost();
      if (this.#contentLost) {
        host.log(
          'warn',
          'the store knows blobs, and its content directory is empty: it may be lost or not mounted',
          {
            remedy: CONTENT_REMEDY,
          },
        );
      }
      return;
    }
    host.log(
      'warn',
      doubt ?? 'the store knows nothing of items in its backends: its metadata may be lost or not mounted',
      {
        backends: await this.#filled(),
        remedy: REMEDY,
      },
    );
  }

  /** An empty directory that the tree was never used with, in the place of one that has blobs. */
  async #isContentLost(): Promise<boolean> {
    const { engine, content } = this.#host;
    if (!(await this.#mark.isUnknown().catch(() => false))) return false;
    if (await hasAny((found) => content.walk(found))) return false;
    // Last: to find the first record may take a walk over all blobs that are named and have none.
    for (const _ of engine.scan(key('blobs'), { limit: 1 })) return true;
    return false;
  }

  /** The metadata was set back while the store is open: what it does not name any more is not garbage. */
  setBack(): void {
    if (this.#foreign) return;
    this.#foreign = true;
    this.#host.log('warn', SET_BACK, { remedy: REMEDY });
    void this.#noteForeign();
  }

  async #noteForeign(): Promise<void> {
    const host = this.#host;
    try {
      await host.engine.update((tx) => tx.put(FOREIGN, '1'));
      await host.engine.shared?.setBackNoted();
    } catch (error) {
      host.log('warn', 'cannot record that the store is not that of its content', { error: String(error) });
    }
  }

  async #doubt(): Promise<string | undefined> {
    if (this.#host.engine.shared?.wasSetBack) return SET_BACK;
    if (isEmptyTree(this.#host.engine)) {
      return 'the store knows nothing of items in its backends: its metadata may be lost or not mounted';
    }
    // The mark of a store in use may be ahead of what is read of it.
    if (this.#host.engine.isReadOnly) return undefined;
    try {
      return await this.#mark.doubt();
    } catch (error) {
      this.#host.log('warn', 'cannot compare the store with the mark of its content', {
        error: String(error),
      });
      return undefined;
    }
  }

  /** Called before a collection and a close: the content is this tree's, as far as the tree has come. */
  async mark(): Promise<void> {
    if (this.#foreign || this.#contentLost) return;
    try {
      await this.#mark.renew();
    } catch (error) {
      this.#host.log('info', 'the content could not be marked', { error: String(error) });
    }
  }

  /** Backends that have a blob or a snapshot. */
  async #filled(): Promise<string[]> {
    const { content, backends } = this.#host;
    const filled: string[] = [];
    if (await hasAny((found) => content.walk(found))) filled.push('content');
    for (const [name, backend] of backends)
      if (await hasAny((found) => backend.walk(found))) filled.push(name);
    return filled;
  }

  /** Throws what stopped an earlier run, if that was not long ago: a walk an hour is enough to see whether it is still true. */
  checkRecent(): void {
    if (this.#refusal !== undefined && performance.now() - this.#refusal.at < REFUSAL_STANDS_MS)
      throw this.#refusal.error;
  }

  /** FailedPrecondition when the removal of these orphans needs consent. */
  check(all: readonly Surveyed[], limits: GuardLimits | undefined): void {
    this.#refusal = undefined;
    if (limits === undefined) return;
    const host = this.#host;
    const { engine } = host;
    const isEmpty = isEmptyTree(engine);
    const strict = this.#foreign || isEmpty;
    const refused = all.filter((one) => isTooMuch(one, strict, limits));
    if (refused.length === 0) return;
    const kept = all.reduce((sum, { survey }) => sum + orphansOf(survey), 0);
    const why = isEmpty
      ? ', and the store is empty'
      : strict
        ? ', and the store began empty beside them or is not that under which they were written'
        : '';
    const error = failedPrecondition(
      `no record names ${refused.map(describe).join('; ')}${why}: the metadata may be lost, set back or not mounted`,
      { object: refused.map(({ backend }) => backend).join(', '), remedy: REMEDY },
    );
    this.#refusal = { error, at: performance.now(), kept };
    host.log('warn', 'nothing is removed until the orphans of the backends are explained', {
      error: error.message,
      remedy: REMEDY,
    });
    throw error;
  }

  /** Every backend was surveyed, and what was found has gone or may go. */
  async explained(): Promise<void> {
    if (!this.#foreign) return;
    try {
      await this.#host.engine.update((tx) => tx.delete(FOREIGN), { background: true });
      this.#foreign = false;
      await this.#mark.adopt();
    } catch (error) {
      this.#host.log('warn', 'cannot record that the orphans are explained', { error: String(error) });
    }
  }
}

export const orphansOf = ({ found }: Survey): number => found.blobs + found.ingests + found.snapshots;

function isTooMuch(
  { survey, accounted }: Surveyed,
  strict: boolean,
  { maxShare, floor }: GuardLimits,
): boolean {
  const { named, found } = survey;
  // Unfinished uploads alone do not make an empty tree doubtful.
  if (strict && found.blobs + found.snapshots > accounted) return true;
  const strange = Math.max(0, orphansOf(survey) - accounted);
  return strange > floor && strange > maxShare * (strange + named);
}

function describe({ backend, survey }: Surveyed): string {
  const { found, bytes, named } = survey;
  const counts = Object.entries(found).filter(([, n]) => n > 0);
  const what = counts.map(([kind, n]) => `${n} ${kind}`).join(' and ');
  const size = bytes > 0 ? `, ${bytes} bytes` : '';
  return `${what} of ${orphansOf(survey) + named} items in "${backend}"${size}`;
}

function isEmptyTree(engine: Engine): boolean {
  return COLLECTIONS.every((collection) => {
    for (const _ of engine.scan(key(collection), { limit: 1 })) return false;
    return true;
  });
}

const FOUND = new EbbtideError('Canceled', 'one is enough');

async function hasAny(walk: (found: () => void) => Promise<void>): Promise<boolean> {
  try {
    await walk(() => {
      throw FOUND;
    });
    return false;
  } catch (error) {
    // Another failure shows when the backend is used.
    return error === FOUND;
  }
}
