/**
 * What every backend sweep shares: the host it works on, what it reports, and the questions "does any record
 * still name this backend item?". A sweep asks them while holding the item's guard; writers make an item and
 * the record that names it under the same guard, so the result stays true until the item is gone.
 *
 * Sweeps run after the removal of the records is on disk: bytes never go before the records that named them.
 */
import type { ContentBackend, SnapshotterBackend } from '../../backends/contract.js';
import { yieldToEventLoop } from '../../backends/files.js';
import type { Engine, Key } from '../../engine/contract.js';
import {
  backendNameKey,
  ingestKey,
  key,
  leaf,
  namespaceOf,
  Relation,
  SEPARATOR,
  snapshotKey,
} from '../../engine/schema/keys.js';
import { isFailedPrecondition, unavailable } from '../../errors.js';
import { isDigest } from '../../model/digest.js';
import type { Guards } from '../../stores/guards.js';
import { isOfSystem } from '../../system/system-errors.js';
import type { Counts } from '../stats.js';
import type { BackendItem } from './orphan-candidates.js';

/** Names of backend items that an operation has made but not yet recorded. */
export type InFlight = () => ReadonlySet<string>;

export interface SweepHost {
  readonly engine: Engine;
  readonly guards: Guards;
  readonly content: ContentBackend;
  readonly backends: ReadonlyMap<string, SnapshotterBackend>;
  readonly dirty: { readonly isDoubtful: boolean };
  log(level: 'warn' | 'error' | 'info', message: string, details?: Readonly<Record<string, unknown>>): void;
}

/** Outcome of one backend's sweep; it failed when there are errors. */
export interface SweepReport {
  removed: number;
  /** Disk bytes freed, as far as the backend knows. */
  bytes: number;
  errors: string[];
  /** Left to the next sweep, because a call under way had them. */
  postponed: BackendItem[];
  /** The backend said FailedPrecondition: in use, or with a child. */
  refused: BackendItem[];
  /** Removed items that a survey found, and their bytes, by kind. */
  orphans: Counts;
  orphanBytes: Counts;
  /** The first of them. */
  orphanNames: { kind: string; key: string }[];
}

/** Names of orphans that a report has. */
export const ORPHAN_NAMES_MAX = 64;

/** Longest wait for the guard of one item, milliseconds: a caller's open transaction may hold it for long. */
const GUARD_PATIENCE_MS = 2000;

/** Runs `fn` under the guard; false, without running it, when the guard did not come free soon. */
export async function underGuard(guards: Guards, name: string, fn: () => Promise<void>): Promise<boolean> {
  const free = guards.tryAcquire(name);
  if (free !== undefined) {
    try {
      await fn();
      return true;
    } finally {
      free();
    }
  }
  const coming = guards.acquire(name);
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, GUARD_PATIENCE_MS, undefined);
  });
  const release = await Promise.race([coming, late]);
  clearTimeout(timer);
  if (release === undefined) {
    void coming.then((lateRelease) => lateRelease());
    return false;
  }
  try {
    await fn();
    return true;
  } finally {
    release();
  }
}

/**
 * Called in the turn in which an item is found unnamed. Throws when that may be because records went that nobody removed: the
 * backends are surveyed then, and the guard decides.
 */
export function checkCertain({ dirty }: SweepHost): void {
  if (dirty.isDoubtful) {
    throw unavailable(
      'records went that no host removed: nothing is removed before the backends were looked through',
    );
  }
}

/** Failures after which a sweep gives up until the next run. */
export const MAX_SWEEP_ERRORS = 32;

export const emptyReport = (): SweepReport => ({
  removed: 0,
  bytes: 0,
  errors: [],
  postponed: [],
  refused: [],
  orphans: {},
  orphanBytes: {},
  orphanNames: [],
});

/** Whether the backend says that an item has to stay: in use, or with a child. What the system refuses is a failure. */
export const isRefusal = (error: unknown): boolean => isFailedPrecondition(error) && !isOfSystem(error);

/** Names of all namespaces. Also those without a record of their own, which is damage: their blobs are named all the same. */
export function namespaces(engine: Engine): Set<string> {
  const found = new Set(Array.from(engine.scan(key('namespaces')), ([record]) => leaf(record)));
  for (const collection of ['blobs', 'ingests']) {
    for (const namespace of namespacesIn(engine, collection)) found.add(namespace);
  }
  return found;
}

/** Those that have records in the collection, or had some until a while ago: one look for each. */
function* namespacesIn(engine: Engine, collection: string): Iterable<string> {
  for (let after: Key | undefined; ; ) {
    const first = engine.firstKey(key(collection), after);
    if (first === undefined) return;
    const namespace = namespaceOf(first);
    yield namespace;
    after = `${key(collection, namespace)}${AFTER_SEPARATOR}`;
  }
}

/** Sorts behind all that is below a key. */
const AFTER_SEPARATOR = '\x01';

export interface BackendName {
  readonly namespace: string;
  /** The key in the namespace. */
  readonly key: string;
}

/** Parts of a backend name `<namespace>/<number>/<key>`; undefined when it is not of that form. */
export function parseBackendName(name: string): BackendName | undefined {
  const first = name.indexOf('/');
  const second = name.indexOf('/', first + 1);
  if (first <= 0 || second <= first + 1 || second === name.length - 1 || name.includes('\0'))
    return undefined;
  return { namespace: name.slice(0, first), key: name.slice(second + 1) };
}

/** The key `make` builds, or undefined where no record can have it. */
function keyOrNone(make: () => Key): Key | undefined {
  try {
    return make();
  } catch {
    return undefined;
  }
}

function textOf(engine: Engine, record: Key | undefined, field: string): string | undefined {
  const value = record === undefined ? undefined : engine.get(record);
  const text = typeof value === 'object' ? value[field] : undefined;
  return typeof text === 'string' ? text : undefined;
}

/** Whether a snapshot record in any namespace names the backend snapshot. `goneSince`: as in RemovedSnapshot. */
export function isSnapshotNamed(
  engine: Engine,
  snapshotter: string,
  name: string,
  goneSince?: number,
): boolean {
  const natural = naturalSnapshot(snapshotter, name);
  const isGone = goneSince !== undefined && natural !== undefined && engine.isGone(natural, goneSince);
  if (!isGone && textOf(engine, natural, 'name') === name) return true;
  // Records that adopted a snapshot they did not make.
  const shared = keyOrNone(() => backendNameKey(snapshotter, name));
  if (shared === undefined || !engine.hasLinks(shared, Relation.named)) return false;
  for (const record of engine.links(shared, Relation.named)) {
    if (textOf(engine, record, 'name') === name) return true;
  }
  return false;
}

/** Whether no record names the item now. */
export async function isUnnamed({ engine }: SweepHost, item: BackendItem): Promise<boolean> {
  switch (item.kind) {
    case 'blob':
      return isDigest(item.digest) && !new BlobNames(engine).isNamed(item.digest);
    case 'ingest':
      return item.ref !== '' && !(await IngestNames.read(engine)).isNamed(item.ref);
    case 'snapshot':
      return item.name !== '' && !isSnapshotNamed(engine, item.snapshotter, item.name);
  }
}

/** The record that a backend snapshot made by this store belongs to. */
function naturalSnapshot(snapshotter: string, name: string): Key | undefined {
  const owner = parseBackendName(name);
  return owner && keyOrNone(() => snapshotKey(owner.namespace, snapshotter, owner.key));
}

/** Whether ingests are named; made once per sweep. */
export class IngestNames {
  readonly #engine: Engine;
  /** Backend refs of imported records, which need not follow the form; new records always do. */
  readonly #irregular = new Set<string>();

  private constructor(engine: Engine) {
    this.#engine = engine;
  }

  static async read(engine: Engine): Promise<IngestNames> {
    const names = new IngestNames(engine);
    let after: Key | undefined;
    do {
      await yieldToEventLoop();
      after = names.#read(after);
    } while (after !== undefined);
    return names;
  }

  /** Reads some records; returns where to go on. */
  #read(after: Key | undefined): Key | undefined {
    let last: Key | undefined;
    let count = 0;
    for (const [record, value] of this.#engine.scan(key('ingests'), { after, limit: INGESTS_PER_TURN })) {
      const ref = typeof value === 'object' ? value.ref : undefined;
      if (typeof ref === 'string' && naturalIngest(ref) !== record) this.#irregular.add(ref);
      last = record;
      count++;
    }
    return count < INGESTS_PER_TURN ? undefined : last;
  }

  isNamed(ref: string): boolean {
    if (this.#irregular.has(ref)) return true;
    return textOf(this.#engine, naturalIngest(ref), 'ref') === ref;
  }
}

/** Records read between two pauses. */
const INGESTS_PER_TURN = 64;

/** The record that a backend ref made by this store belongs to. */
function naturalIngest(ref: string): Key | undefined {
  const owner = parseBackendName(ref);
  return owner && keyOrNone(() => ingestKey(owner.namespace, owner.key));
}

/**
 * Which blobs are named: by a record of any namespace, or by an open ingest that expects them. Made for each batch of
 * blobs, under their guards, unless the last one `isCurrent`.
 */
export class BlobNames {
  readonly #engine: Engine;
  readonly #revision: number;
  readonly #epoch: number;
  /** Each with the beginning of its blobs' keys. */
  readonly #namespaces: { ns: string; prefix: string }[];
  readonly #expected = new Map<string, ReadonlySet<string>>();

  constructor(engine: Engine) {
    this.#engine = engine;
    this.#revision = engine.revision;
    this.#epoch = engine.epoch;
    this.#namespaces = Array.from(namespaces(engine), (ns) => ({
      ns,
      prefix: `${key('blobs', ns)}${SEPARATOR}`,
    }));
  }

  /** No commit has come or was lost since it was made: another one would know the same. */
  get isCurrent(): boolean {
    return this.#engine.revision === this.#revision && this.#engine.epoch === this.#epoch;
  }

  /**
   * Those that `isNamed` has to be asked about: nothing names the others, or did a moment ago, and under their guards
   * nothing can since. The digests must be ones that `isDigest` accepts.
   */
  async mayBeNamed(digests: readonly string[]): Promise<string[]> {
    const prefixes = this.#namespaces.map(({ prefix }) => prefix);
    const replies = await this.#engine.mightBeReferenced(prefixes, digests);
    return digests.filter((_, i) => prefixes.some((_, p) => replies[p * digests.length + i] !== 0));
  }

  /** The digest must be one that `isDigest` accepts. */
  isNamed(digest: string): boolean {
    return this.#namespaces.some(({ ns, prefix }) => {
      const record = prefix + digest;
      // Cheap and usually final: no record, and nothing in the graph points there.
      if (!this.#engine.isReferenced(record)) return false;
      return this.#engine.has(record) || this.#expectedIn(ns).has(digest);
    });
  }

  #expectedIn(ns: string): ReadonlySet<string> {
    let digests = this.#expected.get(ns);
    if (digests === undefined) {
      const found = new Set<string>();
      for (const [, value] of this.#engine.scan(key('ingests', ns))) {
        if (typeof value === 'object' && typeof value.expected === 'string') found.add(value.expected);
      }
      digests = found;
      this.#expected.set(ns, digests);
    }
    return digests;
  }
}
