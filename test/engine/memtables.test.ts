import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Entry, type EntryChange, linkPrefix } from '../../src/engine/core/storage.js';
import type { TableCommit } from '../../src/engine/lmdb/memtable.js';
import { Memtables } from '../../src/engine/lmdb/memtables.js';
import { key } from '../../src/engine/schema/keys.js';

/** A state of records, links and counters, plain. */
interface State {
  readonly records: Map<string, Entry>;
  readonly links: Set<string>;
  readonly counters: Map<string, number>;
}
const copyOf = ({ records, links, counters }: State): State => ({
  records: new Map(records),
  links: new Set(links),
  counters: new Map(counters),
});

/** xorshift: a story by its seed. */
function randomOf(seed: number): (below: number) => number {
  let x = seed | 1;
  return (below) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % below;
  };
}

const keys = Array.from({ length: 12 }, (_, i) => key('images', 'ns', `i${i}`));
const linkOf = (i: number): string => linkPrefix(keys[i % 3]!, 'holds') + keys[i]!;
const counter = key('meta', 'n');

/**
 * Tables beside what they stand for: the state of every revision. The tree has one of them; tables over it must return the
 * newest, whatever was logged, lost and flushed in between.
 */
class Story {
  readonly tables = new Memtables();
  /** The state after each revision. */
  readonly states: State[] = [{ records: new Map(), links: new Set(), counters: new Map() }];
  /** Newest revisions of the groups that the log does not have. */
  groups: number[] = [];
  logged = 0;
  flushed = 0;
  /** Records that were removed, lost removals among them, and the revision before each. */
  readonly removals: { name: string; since: number }[] = [];
  /** How often the tables alone said that a record is gone. */
  knownGone = 0;
  readonly #random: (below: number) => number;

  constructor(seed: number) {
    this.#random = randomOf(seed);
  }

  step(): void {
    const dice = this.#random(10);
    if (dice < 6) this.#commit();
    else if (dice < 8) {
      const revision = this.groups.shift();
      if (revision === undefined) return;
      this.logged = revision;
      this.tables.logged();
    } else if (dice < 9) {
      this.flushed += this.#random(this.logged - this.flushed + 1);
      this.tables.flushed(this.flushed);
    } else if (this.#random(3) === 0) {
      this.groups = [];
      this.states.length = this.logged + 1;
      this.tables.lost();
    }
  }

  #commit(): void {
    const before = this.states[this.states.length - 1]!;
    const state = copyOf(before);
    const entries = new Map<string, EntryChange>();
    const links = new Map<string, boolean>();
    const freed = new Map<number, string>();
    for (let n = 1 + this.#random(3); n > 0; n--) {
      const i = this.#random(keys.length);
      const name = keys[i]!;
      const old = before.records.get(name);
      // Ids are used again as soon as they are free; each key has two to choose from.
      const id = i * 2 + this.#random(2);
      const isDeleted = this.#random(3) === 0;
      if (isDeleted && old === undefined) continue;
      const after = isDeleted
        ? undefined
        : { id: old?.id ?? id, adjacency: undefined, bytes: Buffer.from(`${this.states.length}`) };
      if (isDeleted) this.removals.push({ name, since: this.states.length - 1 });
      if (isDeleted) freed.set(old!.id, name);
      else freed.delete(after!.id);
      entries.set(name, { before: old, after });
      if (after === undefined) state.records.delete(name);
      else state.records.set(name, after);
      const link = linkOf(i);
      if (this.#random(2) === 0) continue;
      const present = !before.links.has(link);
      links.set(link, present);
      if (present) state.links.add(link);
      else state.links.delete(link);
    }
    const counters = new Map<string, number | undefined>();
    if (this.#random(4) === 0) {
      const value = this.#random(3) === 0 ? undefined : this.states.length;
      counters.set(counter, value);
      if (value === undefined) state.counters.delete(counter);
      else state.counters.set(counter, value);
    }
    const commit: TableCommit = {
      revision: this.states.length,
      entries,
      links,
      formerChildren: [],
      counters,
      freed,
    };
    if (this.groups.length === 0 || this.#random(3) === 0) {
      this.tables.beginGroup();
      this.groups.push(0);
    }
    this.tables.add(commit);
    this.states.push(state);
    this.groups[this.groups.length - 1] = commit.revision;
  }

  /** What reads of the tables over the tree find that is not the newest state. */
  wrong(): string[] {
    const newest = this.states[this.states.length - 1]!;
    const tree = this.states[this.flushed]!;
    const wrong: string[] = [];
    for (const [i, name] of keys.entries()) {
      // As the storage reads: the tree's entry counts unless its node was freed or stands for another key.
      const known = this.tables.entry(name);
      const stored = tree.records.get(name);
      const owner = stored && this.tables.keyOf(stored.id);
      const isSuperseded = owner !== undefined && owner !== name;
      const found = known === undefined ? (isSuperseded ? undefined : stored) : (known ?? undefined);
      if (found !== newest.records.get(name)) wrong.push(`record ${i}`);
      const link = linkOf(i);
      const isThere = this.tables.link(link);
      if ((isThere === undefined ? tree.links.has(link) : isThere !== null) !== newest.links.has(link)) {
        wrong.push(`link ${i}`);
      }
    }
    for (const { name, since } of this.removals) {
      if (!this.tables.isGone(name, since)) continue;
      if (newest.records.has(name)) wrong.push(`${name} is not gone`);
      this.knownGone++;
    }
    const present = new Set(this.tables.presentLinks());
    for (const link of tree.links) if (this.tables.link(link) === undefined) present.add(link);
    if (present.size !== newest.links.size || [...present].some((link) => !newest.links.has(link))) {
      wrong.push('all links');
    }
    const number = this.tables.counter(counter);
    if (
      (number === undefined ? tree.counters.get(counter) : (number ?? undefined)) !==
      newest.counters.get(counter)
    ) {
      wrong.push('counter');
    }
    return wrong;
  }
}

test('given commits that are logged, lost and flushed at random, then the tables over the tree return the newest state', () => {
  let knownGone = 0;
  for (let seed = 1; seed <= 300; seed++) {
    const story = new Story(seed * 2654435761);
    for (let step = 1; step <= 150; step++) {
      story.step();
      assert.deepEqual(story.wrong(), [], `seed ${seed}, step ${step}`);
    }
    knownGone += story.knownGone;
  }
  assert.ok(knownGone > 10_000);
});

test('given tables of which the tree has everything, then nothing is kept', () => {
  const tables = new Memtables();
  const entry: Entry = { id: 1, adjacency: undefined, bytes: Buffer.from('x') };
  for (let revision = 1; revision <= 3; revision++) {
    const entries = new Map([[keys[revision]!, { before: undefined, after: { ...entry, id: revision } }]]);
    tables.beginGroup();
    tables.add({
      revision,
      entries,
      links: new Map(),
      formerChildren: [],
      counters: new Map(),
      freed: new Map(),
    });
    tables.logged();
  }

  tables.flushed(2);
  assert.ok(tables.entry(keys[3]!));
  tables.flushed(3);

  for (const name of keys) assert.equal(tables.entry(name), undefined);
  assert.deepEqual([tables.recordLayers().length, tables.keyOf(1)], [0, undefined]);
});
