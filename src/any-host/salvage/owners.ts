/**
 * Which bucket a leaf of records is of. A leaf does not say it, and bbolt gives pages out again: what leads to a page in an older
 * tree may be older than the page. Called by salvage.ts.
 *
 * All records of a leaf are of one bucket. A record is known again by its key and the time of its creation, which no two
 * namespaces have in common. So a leaf is of the bucket that one of its records is known to be in:
 *
 *   - from the tree that the file is about;
 *   - from a leaf of which that is known, and so on;
 *   - from an older tree that leads to the leaf, when nothing contradicts: no other tree leads to it from elsewhere, nothing that
 *     the same tree has in this bucket, or this namespace, is known to be of another one, and the records do not need only what
 *     other namespaces have.
 *
 * A leaf with records of two buckets is damaged, and of neither. What nothing places becomes no record.
 */
import { type Instant, zeroTime } from '../../model/time.js';
import type { Steps } from '../../system/turns.js';
import type { Candidate, Elimination } from './elimination.js';
import { type IsStructureName, namesItself, type Path, type RecordKind } from './shapes.js';
import { type FoundRecord, pathKey, type Walked } from './walk.js';

interface Claim {
  readonly tree: number;
  readonly path: Path;
}

interface Leaf {
  readonly identities: readonly string[];
  readonly claims: Claim[];
  /** Those of a tree that the file is about are not needed. */
  records: readonly Candidate[];
  owner?: Path;
  /** Records of it are known to be in different buckets. */
  isMixed: boolean;
}

/** A record, by its bucket and the time of its creation. */
export interface Made {
  readonly path: Path;
  readonly time: Instant;
}

/** Two buckets have it: it says nothing. */
const BOTH: unique symbol = Symbol();

export class Owners {
  readonly #leaves = new Map<number, Leaf>();
  readonly #byIdentity = new Map<string, Leaf[]>();
  readonly #known = new Map<string, Path | typeof BOTH>();
  readonly #trees: Walked[] = [];
  /** Buckets and namespaces of a tree in which something is of another one. */
  readonly #contradicted = new Set<string>();
  /** A branch, and what it leads to. */
  readonly #families: (readonly Leaf[])[] = [];
  /** By kind and key. */
  readonly #made = new Map<string, readonly Made[]>();
  /** Leaves whose records are to be made known. */
  readonly #next: Leaf[] = [];

  /** The tree that the file is about. REQUIRES: no other was added. */
  *prove(walked: Walked): Steps {
    for (const { page, path, records, identities } of yield* leavesIn(walked)) {
      yield;
      for (const identity of identities) this.#know(identity, path);
      this.#locate(records, path);
      this.#leafOf(page, identities);
    }
  }

  /** An older tree. A leaf of only such names is mostly one of these, given out again. */
  *claim(walked: Walked, isStructureName: IsStructureName): Steps {
    const tree = this.#trees.push(walked) - 1;
    for (const pair of walked.shared) for (const path of pair) this.#contradict({ tree, path });
    for (const record of walked.records) {
      yield;
      const { path, key, facts } = record;
      const { name } = facts;
      if (name?.key === key && name.namespace !== path[1]) this.#contradict({ tree, path });
    }
    for (const { page, path, records, identities } of yield* leavesIn(walked)) {
      const leaf = this.#leafOf(page, identities);
      leaf.records = records;
      if (!records.every(({ key }) => isStructureName(key))) leaf.claims.push({ tree, path });
      yield;
    }
  }

  /** A leaf that no tree leads to. */
  addStray(page: number, records: readonly Candidate[]): void {
    this.#leafOf(page, identitiesOf(records)).records = records;
  }

  /** A branch, and the pages that begin with the keys by which it leads to them: all of one bucket. */
  addFamily(branch: number, children: readonly number[]): void {
    this.#families.push([branch, ...children].map((page) => this.#leafOf(page, [])));
  }

  *resolve(elimination?: Elimination): Steps {
    for (const leaf of this.#leaves.values()) {
      this.#look(leaf);
      yield;
    }
    yield* this.#spread();
    yield* this.#inherit();
    yield* this.#takeClaims(elimination);
    yield* this.#inherit();
    if (elimination !== undefined)
      for (const group of yield* this.#openGroups()) {
        const owner = yield* elimination.ownerOf(group.map(({ records }) => records));
        if (owner !== undefined) for (const leaf of group) this.#place(leaf, owner);
        yield;
      }
    yield* this.#spread();
    for (const { owner, records } of this.#leaves.values()) {
      if (owner !== undefined) this.#locate(records, owner);
      yield;
    }
  }

  #locate(records: readonly Candidate[], path: Path): void {
    for (const { kind, key, facts } of records) {
      const at = `${kind}\0${key}`;
      const others = this.#made.get(at) ?? [];
      if (others.every((other) => other.time !== facts.createdAt || pathKey(other.path) !== pathKey(path)))
        this.#made.set(at, [...others, { path, time: facts.createdAt }]);
    }
  }

  /** Leaves that nothing places, each with those of the same bucket: by a record of both, or a branch above. */
  *#openGroups(): Steps<Leaf[][]> {
    const related = new Map<Leaf, (readonly Leaf[])[]>();
    for (const family of this.#families) {
      for (const member of family) listed(related, member).push(family);
      yield;
    }
    const groups: Leaf[][] = [];
    const seen = new Set<Leaf>();
    for (const leaf of this.#leaves.values()) {
      const group: Leaf[] = [];
      const next = [leaf];
      for (let one = next.pop(); one !== undefined; one = next.pop()) {
        yield;
        if (seen.has(one) || one.owner !== undefined || one.isMixed) continue;
        seen.add(one);
        group.push(one);
        for (const others of related.get(one) ?? []) next.push(...others);
        for (const identity of one.identities) next.push(...(this.#byIdentity.get(identity) ?? []));
      }
      if (group.length > 0) groups.push(group);
    }
    return groups;
  }

  /** The bucket of a leaf's records. */
  ownerOf(page: number): Path | undefined {
    return this.#leaves.get(page)?.owner;
  }

  /** Where and when records of that name are known to have been made. */
  madeAs(kind: RecordKind, key: string): readonly Made[] {
    return this.#made.get(`${kind}\0${key}`) ?? [];
  }

  /** Whether an older tree, or a part of it, has what is of another bucket than it says. */
  isContradicted(walked: Walked, path: Path = []): boolean {
    return this.#isContradicted({ tree: this.#trees.indexOf(walked), path });
  }

  /** What an older tree says, where nothing contradicts. */
  *#takeClaims(elimination: Elimination | undefined): Steps {
    for (const { owner, claims } of this.#leaves.values()) {
      yield;
      for (const claim of claims)
        if (owner !== undefined && pathKey(owner) !== pathKey(claim.path)) this.#contradict(claim);
    }
    const claimed: [Leaf, Path][] = [];
    for (const leaf of this.#leaves.values()) {
      yield;
      if (leaf.owner !== undefined || leaf.isMixed) continue;
      const claims = new Map(
        leaf.claims.filter((claim) => !this.#isContradicted(claim)).map(({ path }) => [pathKey(path), path]),
      );
      const [path] = claims.values();
      if (path === undefined || claims.size > 1) continue;
      const isAnothers = elimination && (yield* elimination.contradicts(leaf.records, path[1] ?? ''));
      if (isAnothers !== true) claimed.push([leaf, path]);
    }
    // All of them first: one that another contradicts is not taken.
    for (const [{ identities }, path] of claimed) {
      for (const identity of identities) this.#know(identity, path);
      yield;
    }
    for (const [leaf, path] of claimed) {
      if (leaf.identities.every((identity) => this.#known.get(identity) !== BOTH)) this.#place(leaf, path);
      yield;
    }
    yield* this.#spread();
  }

  /** Members of a family of which one is placed. */
  *#inherit(): Steps {
    for (let hasMore = true; hasMore; ) {
      hasMore = false;
      for (const family of this.#families) {
        yield;
        const owners = new Map(
          family.flatMap(({ owner }) => (owner === undefined ? [] : [[pathKey(owner), owner]])),
        );
        const [owner] = owners.values();
        if (owner === undefined || owners.size > 1) continue;
        for (const member of family) {
          if (member.owner !== undefined || member.isMixed) continue;
          this.#place(member, owner);
          hasMore = true;
        }
      }
      yield* this.#spread();
    }
  }

  #leafOf(page: number, identities: readonly string[]): Leaf {
    const there = this.#leaves.get(page);
    if (there !== undefined) return there;
    const leaf: Leaf = { identities, claims: [], records: [], isMixed: false };
    this.#leaves.set(page, leaf);
    for (const identity of identities) listed(this.#byIdentity, identity).push(leaf);
    return leaf;
  }

  #know(identity: string, path: Path): void {
    const known = this.#known.get(identity);
    if (known === undefined) this.#known.set(identity, path);
    else if (known !== BOTH && pathKey(known) !== pathKey(path)) this.#known.set(identity, BOTH);
  }

  #place(leaf: Leaf, owner: Path): void {
    leaf.owner = owner;
    this.#next.push(leaf);
  }

  /** Places a leaf that has a record which is known. */
  #look(leaf: Leaf): void {
    if (leaf.owner !== undefined || leaf.isMixed) return;
    const owners = new Map<string, Path>();
    for (const identity of leaf.identities) {
      const path = this.#known.get(identity);
      if (path !== undefined && path !== BOTH) owners.set(pathKey(path), path);
    }
    const [owner] = owners.values();
    leaf.isMixed = owners.size > 1;
    if (owner !== undefined && !leaf.isMixed) this.#place(leaf, owner);
  }

  *#spread(): Steps {
    for (let leaf = this.#next.pop(); leaf !== undefined; leaf = this.#next.pop()) {
      yield;
      const { owner, identities } = leaf;
      if (owner === undefined) continue;
      leaf.isMixed = identities.some((identity) => this.#isElsewhere(identity, owner));
      if (leaf.isMixed) {
        delete leaf.owner;
        continue;
      }
      for (const identity of identities) {
        if (this.#known.has(identity)) continue;
        this.#known.set(identity, owner);
        for (const other of this.#byIdentity.get(identity) ?? []) this.#look(other);
      }
    }
  }

  #isElsewhere(identity: string, owner: Path): boolean {
    const known = this.#known.get(identity);
    return known !== undefined && known !== BOTH && pathKey(known) !== pathKey(owner);
  }

  #contradict({ tree, path }: Claim): void {
    for (const part of [[], path.slice(0, 2), path]) this.#contradicted.add(`${tree}\0${pathKey(part)}`);
  }

  #isContradicted({ tree, path }: Claim): boolean {
    const has = (part: Path): boolean => this.#contradicted.has(`${tree}\0${pathKey(part)}`);
    return has(path) || (path.length > 2 && has(path.slice(0, 2)));
  }
}

const identitiesOf = (records: readonly Candidate[]): string[] =>
  records.flatMap(({ kind, key, facts: { createdAt } }) =>
    namesItself(kind) || createdAt === zeroTime ? [] : [`${kind}\0${createdAt}\0${key}`],
  );

/** The list of a key, which is there from now on. */
function listed<K, V>(lists: Map<K, V[]>, key: K): V[] {
  let list = lists.get(key);
  if (list === undefined) {
    list = [];
    lists.set(key, list);
  }
  return list;
}

interface LeafRecords {
  readonly page: number;
  readonly path: Path;
  readonly records: FoundRecord[];
}

/** Leaves of records that do not name their namespace. */
function* leavesIn({ records }: Walked): Steps<(LeafRecords & { identities: string[] })[]> {
  const leaves = new Map<number, LeafRecords>();
  for (const record of records) {
    yield;
    const { path, kind, leaf: page } = record;
    if (kind === undefined || namesItself(kind)) continue;
    const others = leaves.get(page);
    if (others === undefined) leaves.set(page, { page, path, records: [record] });
    else others.records.push(record);
  }
  return [...leaves.values()].map((leaf) => ({ ...leaf, identities: identitiesOf(leaf.records) }));
}
