/**
 * A picture as the data of a page: some thousands of nodes, the largest, and what is smaller as sums; why each is held; which roots
 * hold what together. Called by html.ts.
 */
import { EdgeReasons, type StepReason } from '../../gc/report/edge-reasons.js';
import { describeKey } from '../../gc/report/objects.js';
import { END_OF_WAY, idOfState } from '../../gc/report/reach.js';
import { printable } from '../../model/printable.js';
import { type Instant, NANOS_PER_SECOND } from '../../model/time.js';
import type { Picture } from '../picture.js';
import { NOBODY } from '../support.js';
import type { Branch } from '../tree.js';
import type { PageData, PageNode, PageRoot, Step } from './page-data.js';
import { type RootSets, rootSets } from './sets.js';

/** Nodes that are shown by themselves. */
const NODES_MAX = 3000;
/** Sums of smaller ones by name: below a node, and in all. */
const RESTS_MAX = 50;
const ALL_RESTS_MAX = 1000;
/** Characters of a name; steps of a way, and the time to find what makes them: records with many labels take long. */
const NAME_MAX = 300;
const STEPS_MAX = 16;
const REASONS_MS = 2000;

export async function pageData(picture: Picture): Promise<PageData> {
  const { tree, disk, roots, pace } = picture;
  const sets = await rootSets(picture);
  const builder = new Builder(picture, sets);
  await builder.add(tree.host);
  const listed = sets?.listed ?? [];
  const bytesOf = (kind: Branch['kind']): number =>
    tree.host.children.reduce((sum, child) => sum + (child.kind === kind ? child.bytes : 0), 0);
  if (pace.isOver) await pace.pass();
  const [garbage, orphans, files] = [bytesOf('garbage'), bytesOf('orphans'), bytesOf('files')];
  return {
    title: cut(tree.host.name),
    at: seconds(picture.at),
    bytes: tree.host.bytes,
    kept: tree.host.bytes - garbage - orphans - files,
    ...{ garbage, orphans, isMeasured: disk !== undefined },
    nodes: builder.nodes,
    roots: listed.map((n, place) => builder.root(n, sets?.keeps[place] ?? 0)),
    otherRoots: roots.length - listed.length,
    ways: builder.ways,
    ...(sets && { sets: sets.sets }),
    isAtLeast: sets?.isAtLeast ?? false,
  };
}

const seconds = (time: Instant): number => Number(time / NANOS_PER_SECOND);

/** As a page shows it. */
function cut(text: string): string {
  const name = printable(text);
  return name.length > NAME_MAX ? `${name.slice(0, NAME_MAX / 2)}…${name.slice(-NAME_MAX / 2)}` : name;
}

class Builder {
  readonly nodes: PageNode[] = [];
  readonly ways: Step[][] = [];
  readonly #picture: Picture;
  readonly #sets: RootSets | undefined;
  /** Nodes of fewer bytes, and of as many, are not shown by themselves. */
  readonly #least: number;
  readonly #frees = new Map<number, number>();
  readonly #listed: ReadonlyMap<number, number>;
  readonly #reasons: EdgeReasons;
  #reasonsMs = 0;
  #restsLeft = ALL_RESTS_MAX;

  constructor(picture: Picture, sets: RootSets | undefined) {
    this.#picture = picture;
    this.#sets = sets;
    this.#listed = new Map(sets?.listed.map((n, place) => [n, place]));
    this.#reasons = new EdgeReasons(picture.host.engine);
    for (const { root, bytes } of branchesOf(picture.tree.host)) {
      if (root !== undefined) this.#frees.set(root, bytes);
    }
    this.#least = leastShown(picture);
  }

  root(n: number, keeps: number): PageRoot {
    const { roots } = this.#picture;
    const { kind: of = '', namespace = '', name = '', id = -1 } = roots[n] ?? {};
    const frees = this.#frees.get(n) ?? 0;
    return { of, namespace: cut(namespace), name: cut(name), frees, keeps, ...this.#use(id) };
  }

  async add(branch: Branch, up = -1): Promise<void> {
    const { root, bytes } = branch;
    const described = root === undefined ? undefined : this.#picture.roots[root];
    const place = root === undefined ? undefined : this.#listed.get(root);
    const index =
      this.nodes.push({
        ...{ up, kind: branch.kind, name: cut(branch.name), bytes },
        ...(described && { of: described.kind, ...this.#use(described.id) }),
        ...(place !== undefined && { root: place }),
      }) - 1;
    const rests = new Rests();
    for (const child of [...branch.children].sort((a, b) => b.bytes - a.bytes)) {
      if (child.bytes > this.#least) await this.add(child, index);
      else {
        const { id = -1 } = this.#picture.roots[child.root ?? -1] ?? {};
        rests.add(child.kind === 'root' ? repositoriesOf(child.name) : '', child.bytes, this.#use(id));
      }
    }
    await this.#addLeaves(branch, index, rests);
    for (const [name, rest] of rests.largest(Math.min(RESTS_MAX, this.#restsLeft))) {
      if (name !== '') this.#restsLeft--;
      const text = `${rest.count} smaller${name === '' ? '' : ` of ${cut(name)}`}`;
      this.nodes.push({ up: index, kind: 'rest', name: text, ...rest });
    }
  }

  async #addLeaves(branch: Branch, up: number, rests: Rests): Promise<void> {
    const { leaves, tree, pace } = this.#picture;
    const shown: number[] = [];
    for (const leaf of tree.order.subarray(branch.first, branch.end)) {
      const size = leaves.sizeOf(leaf);
      if (size > this.#least) shown.push(leaf);
      else rests.add('', size);
    }
    for (const leaf of shown.sort((a, b) => leaves.sizeOf(b) - leaves.sizeOf(a))) {
      this.nodes.push(this.#leaf(leaf, up));
      if (pace.isOver) await pace.pass();
    }
  }

  #leaf(leaf: number, up: number): PageNode {
    const { leaves, support, roots } = this.#picture;
    const first = support.first[leaf] ?? NOBODY;
    const set = this.#sets?.setOf(leaf);
    return {
      ...{ up, kind: 'leaf', of: leaves.kindOf(leaf), name: cut(leaves.nameOf(leaf)) },
      bytes: leaves.sizeOf(leaf),
      ...(first !== NOBODY && {
        keepers: support.countOf(leaf),
        way: this.ways.push(this.#wayTo(leaf)) - 1,
        ...this.#use(roots[first]?.id ?? -1),
      }),
      ...(set !== undefined && { set }),
    };
  }

  #use(id: number): { used?: number } {
    const time = this.#picture.lastUse.get(id);
    return time === undefined ? {} : { used: seconds(time) };
  }

  #wayTo(leaf: number): Step[] {
    const { support } = this.#picture;
    const ids: number[] = [];
    for (
      let state = support.reachedIn[leaf] ?? END_OF_WAY;
      state >= 0;
      state = support.before[state] ?? END_OF_WAY
    )
      ids.push(idOfState(state));
    ids.reverse();
    const head = ids.length > STEPS_MAX ? STEPS_MAX / 2 : ids.length;
    const steps: Step[] = [];
    for (const [n, id] of ids.entries()) {
      if (n === head) steps.push(['', `… ${ids.length - STEPS_MAX} more …`]);
      if (n >= head && n < ids.length - STEPS_MAX / 2) continue;
      steps.push([this.#viaOf(ids[n - 1], id), this.#object(id)]);
    }
    return steps;
  }

  /** '' when the time for that is over. */
  #viaOf(before: number | undefined, id: number): string {
    if (this.#reasonsMs > REASONS_MS) return '';
    const started = performance.now();
    const { via, name }: StepReason =
      before === undefined ? this.#reasons.ofRoot(id) : this.#reasons.of(before, id);
    this.#reasonsMs += performance.now() - started;
    if (via === 'root') return cut(name === '' ? 'a root' : `a root by label ${name}`);
    return cut(`${via} ${name}`.trimEnd());
  }

  #object(id: number): string {
    const record = this.#picture.host.engine.keyOf(id);
    if (record === undefined) return '(gone)';
    const { kind, namespace, key } = describeKey(record);
    return cut(`${kind} ${key} in ${namespace}`);
  }
}

/** Where an image's repository is: its name without the last part. '' where there is none. */
const repositoriesOf = (name: string): string => name.slice(0, Math.max(0, name.lastIndexOf('/')));

interface Rest {
  count: number;
  bytes: number;
  /** The latest use. */
  used?: number;
}

function sum(to: Rest, { count, bytes, used = -1 }: Rest): void {
  to.count += count;
  to.bytes += bytes;
  if (used >= 0 && used > (to.used ?? -1)) to.used = used;
}

/** What is too small, summed by what the names have in common. */
class Rests {
  readonly #rests = new Map<string, Rest>();

  add(name: string, bytes: number, { used }: { used?: number } = {}): void {
    let rest = this.#rests.get(name);
    if (rest === undefined) {
      rest = { count: 0, bytes: 0 };
      this.#rests.set(name, rest);
    }
    sum(rest, { count: 1, bytes, ...(used !== undefined && { used }) });
  }

  /** The last is what is left. */
  largest(most: number): [name: string, rest: Rest][] {
    const named = [...this.#rests].filter(([name]) => name !== '').sort(([, a], [, b]) => b.bytes - a.bytes);
    const left: Rest = this.#rests.get('') ?? { count: 0, bytes: 0 };
    for (const [, rest] of named.splice(most)) sum(left, rest);
    return left.count === 0 ? named : [...named, ['', left]];
  }
}

function* branchesOf(branch: Branch): Generator<Branch> {
  yield branch;
  for (const child of branch.children) yield* branchesOf(child);
}

/** So that no more than the largest are shown. */
function leastShown({ tree, leaves }: Picture): number {
  const sizes: number[] = [];
  for (const { bytes } of branchesOf(tree.host)) sizes.push(bytes);
  const all = new Float64Array(sizes.length + leaves.count);
  all.set(sizes);
  all.set(leaves.sizes, sizes.length);
  all.sort();
  return Math.max(0, all[all.length - 1 - NODES_MAX] ?? 0);
}
