/**
 * A seeded story of a replaced directory: on a real store, with writers and a collection under way, the root or a directory
 * of it is renamed and another one, with the same names in it, put in its place, at a moment that the seed chooses. Moments
 * are those at which the store compares a directory with its name, and at which it uses one. Threads go on as they like, so
 * a seed gives nearly the same story again.
 */
import { cpSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { LocalContent } from '../../src/backends/content/store.js';
import { DirectorySnapshotter } from '../../src/backends/snapshotters/snapshotter.js';
import type { CallContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import { isKind } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import { layout, openDB } from '../../src/open.js';
import { readBlob, writeBlob } from '../../src/stores/content/content-helpers.js';
import { HeldDirectory } from '../../src/system/held-directory.js';
import { Random } from '../support/random.js';
import { treeOf } from './place.js';

/** Protections that a story can go without. */
export const mutations = [
  /** No directory is compared with its name. */
  'no-verify',
  /** Directories are used by their names, not through descriptors. */
  'no-descriptors',
] as const;
export type Mutation = (typeof mutations)[number];

/** What a story can come by. */
export const marks = [
  'root replaced during a sweep',
  'root replaced outside of sweeps',
  'root replaced while a writer wrote',
  'write refused in a replaced root',
  'run ended by a replaced root',
  'sweep failed in a replaced root',
  'closed while replaced',
] as const;
export type Mark = (typeof marks)[number];

export interface Outcome {
  /** What went wrong; empty when nothing did. */
  violations: string[];
  marks: Set<Mark>;
  /** Where and when, for the report of a failure. */
  reported: string;
}

const ctx: CallContext = { namespace: 'test' };
const rooted = { labels: { 'containerd.io/gc.root': 'x' } };
const bytesOf = (name: string): Buffer => Buffer.from(`${name} `.repeat(300));
const targetOf = (name: string) => {
  const bytes = bytesOf(name);
  return { mediaType: 'application/x', digest: digestOf(bytes), size: bytes.length };
};

const inContent =
  (name: string) =>
  (root: string): string =>
    join(layout.content(root), name);
const native = (root: string): string => layout.snapshotter(root, 'native');
/** What is replaced; whether a blob can be acknowledged, and mounts handed out, all the same. */
const parts = [
  { name: 'root', at: (root: string) => root, writes: false, mounts: false },
  { name: 'database', at: layout.database, writes: false, mounts: true },
  { name: 'content', at: layout.content, writes: false, mounts: true },
  { name: 'blobs', at: inContent('blobs'), writes: false, mounts: true },
  { name: 'blobs/sha256', at: inContent('blobs/sha256'), writes: false, mounts: true },
  { name: 'ingest', at: inContent('ingest'), writes: false, mounts: true },
  { name: '.drafts', at: inContent('.drafts'), writes: false, mounts: true },
  { name: '.trash', at: inContent('.trash'), writes: true, mounts: true },
  { name: 'snapshotter', at: native, writes: true, mounts: false },
  { name: 'snapshots', at: (root: string) => join(native(root), 'snapshots'), writes: true, mounts: false },
] as const;

/** A file of the trash may go while it is copied: then once more. */
function copyInUse(from: string, to: string): void {
  for (;;) {
    try {
      cpSync(from, to, { recursive: true });
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      rmSync(to, { recursive: true, force: true });
    }
  }
}

const put = (db: DB, name: string, labels = {}): Promise<unknown> =>
  writeBlob(db.content, ctx, `r-${name}`, bytesOf(name), targetOf(name), labels);

/** Where the store is about to look at, or to use, a directory; some of them in a sweep. */
class Moments {
  inSweep = 0;
  /** Called at each moment. */
  onMoment: () => void = () => undefined;
  readonly #undo: (() => void)[] = [];
  #isTelling = false;

  constructor(mutation: Mutation | undefined) {
    this.#verify(mutation === 'no-verify');
    this.#at(mutation === 'no-descriptors');
    this.#sweeping(LocalContent.prototype, 'deleteMany');
    this.#sweeping(DirectorySnapshotter.prototype, 'remove');
    this.#sweeping(DirectorySnapshotter.prototype, 'cleanup');
  }

  restore(): void {
    for (const undo of this.#undo) undo();
  }

  #moment(): void {
    if (this.#isTelling) return;
    this.#isTelling = true;
    this.onMoment();
    this.#isTelling = false;
  }

  #verify(isOff: boolean): void {
    const { prototype } = HeldDirectory;
    const { verify } = prototype;
    const moment = () => this.#moment();
    prototype.verify = function (...entries: string[]) {
      moment();
      if (!isOff) verify.apply(this, entries);
      moment();
    };
    this.#undo.push(() => {
      prototype.verify = verify;
    });
  }

  #at(byName: boolean): void {
    const { prototype } = HeldDirectory;
    const at = Object.getOwnPropertyDescriptor(prototype, 'at')!;
    const moment = () => this.#moment();
    Object.defineProperty(prototype, 'at', {
      ...at,
      get(this: HeldDirectory): string {
        moment();
        return byName ? this.path : at.get!.call(this);
      },
    });
    this.#undo.push(() => Object.defineProperty(prototype, 'at', at));
  }

  #sweeping<K extends string>(prototype: Record<K, (...args: never[]) => Promise<unknown>>, name: K): void {
    const method = prototype[name];
    const moments = this;
    prototype[name] = async function (this: unknown, ...args: never[]) {
      moments.inSweep++;
      try {
        return await method.apply(this, args);
      } finally {
        moments.inSweep--;
      }
    };
    this.#undo.push(() => {
      prototype[name] = method;
    });
  }
}

class Story {
  readonly violations: string[] = [];
  readonly marks = new Set<Mark>();
  readonly #seed: number;
  readonly #random: Random;
  readonly #store: Store;
  readonly #moments: Moments;
  readonly #part: (typeof parts)[number];
  readonly #when: { inSweep: boolean; moment: number };
  #db: DB;
  #before: Record<string, string> = {};
  #passed = 0;
  #isReplaced = false;
  #writing = 0;

  constructor(seed: number, store: Store, db: DB, moments: Moments) {
    this.#seed = seed;
    this.#random = new Random(seed);
    this.#store = store;
    this.#db = db;
    this.#moments = moments;
    this.#part = this.#random.pick(parts);
    const inSweep = this.#random.chance(0.5);
    this.#when = { inSweep, moment: 1 + this.#random.int(inSweep ? 12 : 40) };
  }

  get reported(): string {
    const { inSweep, moment } = this.#when;
    return `${this.#part.name} replaced at moment ${moment}${inSweep ? ' of the sweeps' : ''}`;
  }

  get #place(): string {
    return this.#part.at(this.#store.root);
  }

  async run(): Promise<void> {
    await this.#fill();
    copyInUse(this.#place, this.#store.other);
    this.#before = treeOf(this.#store.other);
    try {
      this.#moments.onMoment = () => this.#pass();
      await Promise.all([this.#collect(), this.#writes('a'), this.#writes('b')]);
      this.#moments.onMoment = () => undefined;
      this.#replace();
      await this.#isRefused();
      if (this.#random.chance(0.1)) await this.#reopen();
    } finally {
      this.#moments.onMoment = () => undefined;
      this.#putBack();
    }
    await this.#verify();
  }

  /** Things to keep, and garbage. */
  async #fill(): Promise<void> {
    const snapshots = this.#db.snapshotter('native')!;
    for (const kind of ['kept', 'gone-0', 'gone-1']) {
      const name = `${kind}-${this.#seed}`;
      const options = kind === 'kept' ? rooted : {};
      await put(this.#db, name, options);
      await snapshots.prepare(ctx, `p-${name}`, '', options);
      await snapshots.commit(ctx, `s-${name}`, `p-${name}`, options);
      if (kind !== 'kept') continue;
      this.#store.blobs.push(name);
      this.#store.snapshots.push(`s-${name}`);
    }
  }

  #pass(): void {
    if (this.#isReplaced || (this.#when.inSweep && this.#moments.inSweep === 0)) return;
    if (++this.#passed < this.#when.moment) return;
    this.marks.add(
      this.#moments.inSweep > 0 ? 'root replaced during a sweep' : 'root replaced outside of sweeps',
    );
    if (this.#writing > 0) this.marks.add('root replaced while a writer wrote');
    this.#replace();
  }

  #replace(): void {
    if (this.#isReplaced) return;
    this.#isReplaced = true;
    renameSync(this.#place, this.#store.aside);
    renameSync(this.#store.other, this.#place);
  }

  #putBack(): void {
    if (this.#isReplaced) {
      const after = treeOf(this.#place);
      const names = [...new Set([...Object.keys(this.#before), ...Object.keys(after)])];
      const changed = names.filter((name) => this.#before[name] !== after[name]);
      if (changed.length > 0) this.violations.push(`the other directory was changed: ${changed.join(', ')}`);
      rmSync(this.#place, { recursive: true });
      renameSync(this.#store.aside, this.#place);
      this.#isReplaced = false;
    } else rmSync(this.#store.other, { recursive: true });
  }

  async #reopen(): Promise<void> {
    this.marks.add('closed while replaced');
    await this.#db.close();
    this.#putBack();
    this.#db = await this.#store.open();
    copyInUse(this.#place, this.#store.other);
  }

  async #attempt(work: () => Promise<unknown>): Promise<boolean> {
    try {
      await work();
      return true;
    } catch (error) {
      const isTheReason = this.#isReplaced && /replaced/.test(String(error));
      if (!isKind(error, 'Unavailable') || !isTheReason)
        this.violations.push(`an error that is not of a replaced root: ${(error as Error).stack}`);
      this.marks.add('write refused in a replaced root');
      return false;
    }
  }

  async #collect(): Promise<void> {
    const fullSweep = this.#random.chance(0.5);
    const isDone = await this.#attempt(async () => {
      const { backendErrors } = await this.#db.garbageCollect({}, { fullSweep });
      if (backendErrors === 0) return;
      this.marks.add('sweep failed in a replaced root');
      if (!this.#isReplaced) this.violations.push('a sweep failed before anything was replaced');
    });
    if (!isDone) this.marks.add('run ended by a replaced root');
  }

  async #writes(lane: string): Promise<void> {
    const db = this.#db;
    const { blobs, images, snapshots } = this.#store;
    for (let i = 0; i < 3; i++) {
      const name = `${lane}-${i}-${this.#seed}`;
      this.#writing++;
      if (await this.#attempt(() => put(db, name, rooted))) {
        blobs.push(name);
        const made = () => db.images.create(ctx, { name, target: targetOf(name), labels: {} });
        if (await this.#attempt(made)) images.push(name);
      }
      const prepared = () => db.snapshotter('native')!.prepare(ctx, `p-${name}`, '', rooted);
      if (await this.#attempt(prepared)) snapshots.push(`p-${name}`);
      this.#writing--;
    }
  }

  /** While another directory is there, nothing that would need this one is acknowledged. */
  async #isRefused(): Promise<void> {
    const { writes, mounts } = this.#part;
    const snapshots = this.#db.snapshotter('native')!;
    const wasWritten = await this.#attempt(() => put(this.#db, `late-${this.#seed}`, rooted));
    if (wasWritten && !writes) this.violations.push('a write was acknowledged in a replaced root');
    const hadMounts = await this.#attempt(() => snapshots.view(ctx, 'v-late', `s-kept-${this.#seed}`));
    if (hadMounts && !mounts) this.violations.push('mounts of another directory were handed out');
    if (hadMounts) await this.#attempt(() => snapshots.remove(ctx, 'v-late'));
  }

  /** The directory is back: all that was acknowledged is in it, and a collection leaves nothing over. */
  async #verify(): Promise<void> {
    const db = this.#db;
    const missing = async (what: string, look: () => Promise<unknown>): Promise<void> => {
      await look().catch((error: unknown) => this.violations.push(`${what} is lost: ${error}`));
    };
    const { blobs, images, snapshots } = this.#store;
    await db.garbageCollect({}, { fullSweep: true });
    for (const name of blobs) await missing(`blob ${name}`, () => readBlob(db.content, ctx, targetOf(name)));
    for (const name of images) await missing(`image ${name}`, () => db.images.get(ctx, name));
    for (const key of snapshots)
      await missing(`snapshot ${key}`, () => db.snapshotter('native')!.stat(ctx, key));
    const { findings } = await db.check({});
    for (const { kind, object } of findings) this.violations.push(`${kind}: ${object}`);
  }
}

/** A store under stories, one after the other, and all that was acknowledged in it. */
export class Store implements AsyncDisposable {
  readonly root: string;
  readonly other: string;
  readonly aside: string;
  /** Names of blobs and images, and keys of snapshots. */
  readonly blobs: string[] = [];
  readonly images: string[] = [];
  readonly snapshots: string[] = [];
  #db: DB | undefined;

  constructor(dir: string) {
    this.root = join(dir, 'root');
    this.other = join(dir, 'other');
    this.aside = join(dir, 'aside');
  }

  async open(): Promise<DB> {
    this.#db = await openDB({ root: this.root, snapshotters: ['native'], log: () => undefined });
    return this.#db;
  }

  async report(seed: number, mutation?: Mutation): Promise<Outcome> {
    if (this.#db === undefined) {
      const db = await this.open();
      await db.namespaces.create({}, 'test');
    }
    const moments = new Moments(mutation);
    const story = new Story(seed, this, this.#db!, moments);
    try {
      await story.run();
    } catch (error) {
      story.violations.push(`the store could not be used: ${(error as Error).stack}`);
    } finally {
      moments.restore();
    }
    return { violations: story.violations, marks: story.marks, reported: story.reported };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#db?.close();
  }
}
