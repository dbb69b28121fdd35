/**
 * What the graph core must return, written as plainly as possible: nodes in a map, edges in a list, every query by
 * looking at all of them. Small graphs only; marking is done within the call. native/ is compared with it bit for bit
 * (differential.test.ts).
 */
import { MarkBit, type MarkResult, type RetainedQuery, type RetainedSizes } from '../../src/engine/graph.js';
import { failedPrecondition, invalidArgument } from '../../src/errors.js';
import { C, flat, Model, type ModelEdge, P, R, structural, X } from './cores.js';
import { crc32c } from './crc32c.js';
import { retainedOf } from './queries.js';

const ascending = (a: number, b: number): number => a - b;
const FRAME_IDS = 65_536;

interface Run {
  readonly now: bigint;
  readonly barrier: boolean;
  readonly marks: Map<number, number>;
  /** Its marks are what is reached now, from these too; undefined when they only grow. */
  readonly pins: Set<number> | undefined;
  readonly counts: Omit<MarkResult, 'durationMs' | 'marking'>;
  order: number[];
}

export class Oracle {
  #model = new Model();
  /** Listed when they became free-able. */
  #freeable = new Set<number>();
  #run: Run | undefined;
  readonly #saved = new WeakMap<Uint8Array, Model>();

  apply(ops: Uint32Array): void {
    const before = structuredClone({ nodes: this.#model.nodes, edges: this.#model.edges });
    const freeable = new Set(this.#freeable);
    const marks = new Map(this.#run?.marks);
    const applied: number[][] = [];
    try {
      for (let at = 0; at < ops.length; at += applied.at(-1)!.length) {
        const op = [...ops.subarray(at, at + ([0, 5, 2, 4, 4][ops[at]!] ?? 0))];
        this.#applyOne(op);
        applied.push(op);
      }
    } catch (error) {
      this.#model = Object.assign(new Model(), before);
      this.#freeable = freeable;
      if (this.#run !== undefined) this.#run = { ...this.#run, marks };
      throw error;
    }
    if (this.#run?.pins !== undefined) {
      for (const [code, a = 0] of applied) if (code === 2) this.#run.pins.delete(a);
      this.#markAnew(this.#run);
    } else if (this.#run?.barrier) this.#keepClosed(this.#run, applied);
  }

  #applyOne(op: number[]): void {
    const [code, a = 0, b = 0, c = 0] = op;
    const { nodes } = this.#model;
    const ids = code === 3 || code === 4 ? [a, b] : [a];
    const was = ids.map((id) => this.#isFreeable(id));
    if (code === 2 && !was[0]) throw invalidArgument('not free-able');
    if (code === 3 && !ids.every((id) => nodes.has(id))) throw invalidArgument('no such node');
    if (code === 4 && !this.#edgesOf(a).some((e) => e.to === b && e.kind === c))
      throw invalidArgument('no such edge');
    const appears = code === 1 && (b & P) !== 0 && ((nodes.get(a)?.flags ?? 0) & P) === 0;
    this.#model.follow([op]);
    if (code === 2) this.#run?.marks.delete(a);
    if (appears && this.#run?.barrier) this.#run.marks.set(a, this.marksOf(a) | MarkBit.allocatedBlack);
    ids.forEach((id, i) => {
      if (!was[i] && this.#isFreeable(id)) this.#freeable.add(id);
    });
  }

  mark(now: bigint, { barrier = true, live = false } = {}): Omit<MarkResult, 'durationMs' | 'marking'> {
    if (this.#run !== undefined) throw failedPrecondition('a run is in progress');
    const counts = { markedByType: new Uint32Array(32), marked: 0, edgesFollowed: 0 };
    const pins = live ? new Set<number>() : undefined;
    const run: Run = { now, barrier, marks: new Map(), pins, counts, order: [] };
    this.#run = run;
    for (const id of this.#ids()) if (this.#isRoot(id, now)) this.#reach(run, id, MarkBit.plain);
    const left = new Set(this.#ids().filter((id) => this.#isCandidate(run, id)));
    for (let level = [-1]; level.length > 0; run.order.push(...level)) {
      const referred = new Set(this.#model.edges.filter((e) => left.has(e.from)).map((e) => e.to));
      level = [...left].filter((id) => !referred.has(id));
      for (const id of level) left.delete(id);
    }
    run.order.push(...left);
    return { ...counts, markedByType: counts.markedByType.slice() };
  }

  /** Marks a node and what it reaches, as far as that is not marked. */
  #reach(run: Run, id: number, bit: number): void {
    const marks = run.marks.get(id) ?? 0;
    if ((marks & bit) !== 0) return;
    run.marks.set(id, marks | bit);
    if ((marks & (MarkBit.plain | MarkBit.flat)) === 0) {
      const { flags } = this.#model.nodes.get(id)!;
      run.counts.marked++;
      if ((flags & P) !== 0) run.counts.markedByType[flags >> 8]!++;
    }
    for (const { to, kind } of this.#edgesOf(id)) {
      if (bit === MarkBit.flat && kind !== structural) continue;
      run.counts.edgesFollowed++;
      this.#follow(run, bit, to, kind);
    }
  }

  #follow(run: Run, marks: number, to: number, kind: number): void {
    if ((marks & MarkBit.plain) !== 0) this.#reach(run, to, kind === flat ? MarkBit.flat : MarkBit.plain);
    if ((marks & MarkBit.flat) !== 0 && kind === structural) this.#reach(run, to, MarkBit.flat);
  }

  #keepClosed(run: Run, ops: number[][]): void {
    for (const [code, a = 0, b = 0, c = 0] of ops) {
      if (code === 1 && this.#isRoot(a, run.now)) this.#reach(run, a, MarkBit.plain);
      if (code === 3 && this.#model.nodes.has(b)) this.#follow(run, this.marksOf(a), b, c);
    }
  }

  /** Marks what is reached now, and otherwise only new nodes. */
  #markAnew(run: Run): void {
    for (const [id, marks] of run.marks) run.marks.set(id, marks & MarkBit.allocatedBlack);
    const { plain, flat } = this.#model.reachable(run.now, { roots: run.pins! });
    for (const id of plain) run.marks.set(id, this.marksOf(id) | MarkBit.plain);
    for (const id of flat) run.marks.set(id, this.marksOf(id) | MarkBit.flat);
  }

  markFrom(ids: Uint32Array): number {
    const run = this.#marked();
    if (run.pins !== undefined) {
      const reached = (): number =>
        [...run.marks.values()].filter((m) => (m & ~MarkBit.allocatedBlack) !== 0).length;
      const before = reached();
      for (const id of ids) if (this.#model.nodes.has(id)) run.pins.add(id);
      this.#markAnew(run);
      return reached() - before;
    }
    const before = run.counts.marked;
    for (const id of ids) if (this.#model.nodes.has(id)) this.#reach(run, id, MarkBit.plain);
    return run.counts.marked - before;
  }

  marksOf(id: number): number {
    return this.#run?.marks.get(id) ?? 0;
  }

  candidates(): Uint32Array {
    const run = this.#marked();
    return Uint32Array.from(run.order.filter((id) => this.#isCandidate(run, id)));
  }

  stillCandidates(ids: Uint32Array): Uint32Array {
    const run = this.#marked();
    return ids.filter((id) => this.#isCandidate(run, id));
  }

  endRun(): void {
    this.#run = undefined;
  }

  takeFreeable(): Uint32Array {
    const ids = [...this.#freeable].filter((id) => this.#isFreeable(id)).sort(ascending);
    this.#freeable.clear();
    return Uint32Array.from(ids);
  }

  unusedIds(from: number, max: number): Uint32Array {
    const all = Array.from({ length: this.stats().limit }, (_, id) => id);
    return Uint32Array.from(all.filter((id) => id >= from && !this.#model.nodes.has(id)).slice(0, max));
  }

  withFlags(flags: number): Uint32Array {
    return Uint32Array.from(this.#ids().filter((id) => (this.flagsOf(id) & flags) === flags));
  }

  flagsOf(id: number): number {
    return this.#model.nodes.get(id)?.flags ?? 0;
  }

  inDegreeOf(id: number): number {
    return Math.min(this.#inDegree(id), 255);
  }

  expiryOf(id: number): bigint | undefined {
    return (this.flagsOf(id) & X) === 0 ? undefined : this.#model.nodes.get(id)?.expiry;
  }

  rows(from: number, count: number): Uint32Array {
    const ids = Array.from({ length: this.stats().limit }, (_, id) => id).slice(from, from + count);
    const rowOf = (id: number): number[] => {
      const edges = this.#edgesOf(id);
      return [this.flagsOf(id), edges.length, ...edges.map(({ to, kind }) => to * 4 + kind)];
    };
    return Uint32Array.from(ids.flatMap(rowOf));
  }

  edgesOf(id: number): Uint32Array {
    return Uint32Array.from(this.#edgesOf(id).flatMap(({ to, kind }) => [to, kind]));
  }

  /** Breadth first; every state, id × 2 + 1 when flat, remembers its smallest predecessor in the level before. */
  path(id: number, now: bigint): Uint32Array | undefined {
    const came = new Map<number, number>();
    for (const root of this.#ids()) if (this.#isRoot(root, now)) came.set(root * 2, -1);
    let level = [...came.keys()];
    while (level.length > 0 && !came.has(id * 2) && !came.has(id * 2 + 1)) {
      const next = new Map<number, number>();
      for (const state of level.sort(ascending)) {
        for (const { to, kind } of this.#edgesOf(state >> 1)) {
          if (state % 2 === 1 && kind !== structural) continue;
          const reached = to * 2 + (state % 2 === 1 || kind === flat ? 1 : 0);
          if (!came.has(reached) && !next.has(reached)) next.set(reached, state);
        }
      }
      for (const [state, from] of next) came.set(state, from);
      level = [...next.keys()];
    }
    const path: number[] = [];
    let state = came.has(id * 2) ? id * 2 : id * 2 + 1;
    for (; state >= 0 && came.has(state); state = came.get(state)!) path.unshift(state >> 1);
    return path.length === 0 ? undefined : Uint32Array.from(path);
  }

  retained(query: RetainedQuery): Omit<RetainedSizes, 'durationMs'> {
    return retainedOf(this.#model, query);
  }

  stats(): { nodes: number; edges: number; limit: number } {
    const { nodes, edges } = this.#model;
    return { nodes: nodes.size, edges: edges.length, limit: (this.#ids().at(-1) ?? -1) + 1 };
  }

  /** The checkpoint's bytes as native/checkpoint/checkpoint.h has them, without marks that live on. */
  save(): Buffer {
    const ids = this.#ids();
    const frames = [...new Set(ids.map((id) => Math.floor(id / FRAME_IDS)))].map((n) => this.#frame(n));
    const { limit, nodes, edges } = this.stats();
    const bytes = 44 + frames.reduce((sum, frame) => sum + frame.length, 0);
    const header = join(u32(0x47424245, 2, limit, frames.length, nodes, 0, edges, 0, bytes, 0));
    const image = join(header, u32(crc32c(header)), ...frames);
    this.#saved.set(image, Object.assign(new Model(), structuredClone({ ...this.#model })));
    return image;
  }

  #frame(number: number): Buffer {
    const first = number * FRAME_IDS;
    const ids = this.#ids().filter((id) => id >= first && id < first + FRAME_IDS);
    const dictionary = [...new Set(ids.map((id) => this.flagsOf(id)))].sort(ascending);
    const isWide = dictionary.length > 255;
    const edges = ids.flatMap((id) => this.#edgesOf(id));
    const packed = edges.map(({ from, to, kind }) => {
      const distance = ((to - from) << 2) >> 2;
      return (((((distance << 1) ^ (distance >> 31)) << 2) | kind) >>> 0) as number;
    });
    const lengths = packed.map((word) => (word < 2 ** 8 ? 1 : word < 2 ** 16 ? 2 : word < 2 ** 24 ? 3 : 4));
    const controls = Buffer.alloc(Math.ceil(edges.length / 4));
    lengths.forEach((length, i) => {
      controls[i >> 2]! |= (length - 1) << (2 * (i & 3));
    });
    const all = Array.from({ length: ids.at(-1)! - first + 1 }, (_, i) => first + i);
    const code = (id: number): number[] => {
      if (!this.#model.nodes.has(id)) return isWide ? [0, 0, 0] : [0];
      const flags = this.flagsOf(id);
      return isWide ? [1, flags & 255, flags >> 8] : [dictionary.indexOf(flags) + 1];
    };
    const degrees = all.map((id) => this.#edgesOf(id).length);
    const inDegrees = all.map((id) => this.#inDegree(id));
    const isLarge = (n: number): boolean => n >= 255;
    const narrow = (numbers: number[]): Buffer => Buffer.from(numbers.map((n) => Math.min(n, 255)));
    const expiries = ids.map((id) => this.expiryOf(id)).filter((at) => at !== undefined);
    const payload = join(
      u16(isWide ? 0xffff : dictionary.length, 0),
      u32(all.length, edges.length, degrees.filter(isLarge).length, inDegrees.filter(isLarge).length),
      u32(expiries.length),
      u16(...(isWide ? [] : dictionary)),
      Buffer.from(all.flatMap(code)),
      narrow(degrees),
      narrow(inDegrees),
      u32(...degrees.filter(isLarge)),
      u32(...inDegrees.filter(isLarge)),
      Buffer.from(BigInt64Array.from(expiries).buffer),
      controls,
      ...packed.map((word, i) => u32(word).subarray(0, lengths[i])),
    );
    const head = u32(number, payload.length);
    return join(head, u32(crc32c(join(head, payload))), payload);
  }

  /** Of its own images only: it remembers what it saved. */
  load(image: Uint8Array): boolean {
    const model = this.#saved.get(image);
    if (model === undefined) throw new Error('not saved here');
    this.endRun();
    this.#model = Object.assign(new Model(), structuredClone({ ...model }));
    this.#freeable = new Set(this.#ids().filter((id) => this.#isFreeable(id)));
    return true;
  }

  #ids(): number[] {
    return [...this.#model.nodes.keys()].sort(ascending);
  }

  /** Ascending by target, then kind. */
  #edgesOf(id: number): ModelEdge[] {
    const found = this.#model.edges.filter((e) => e.from === id);
    return found.sort((a, b) => a.to - b.to || a.kind - b.kind);
  }

  #inDegree(id: number): number {
    return this.#model.edges.filter((e) => e.to === id).length;
  }

  #isRoot(id: number, now: bigint): boolean {
    const flags = this.flagsOf(id);
    return (flags & R) !== 0 && ((flags & X) === 0 || now <= this.#model.nodes.get(id)!.expiry);
  }

  #isFreeable(id: number): boolean {
    const isFree = (this.flagsOf(id) & P) === 0 && this.#edgesOf(id).length === 0 && this.#inDegree(id) === 0;
    return isFree && this.#model.nodes.has(id);
  }

  #isCandidate(run: Run, id: number): boolean {
    return (this.flagsOf(id) & (P | C)) === (P | C) && (run.marks.get(id) ?? 0) === 0;
  }

  #marked(): Run {
    if (this.#run === undefined) throw failedPrecondition('no run');
    return this.#run;
  }
}

const join = (...parts: Uint8Array[]): Buffer => Buffer.concat(parts);
const u16 = (...numbers: number[]): Buffer => Buffer.from(Uint16Array.from(numbers).buffer);
const u32 = (...numbers: number[]): Buffer => Buffer.from(Uint32Array.from(numbers).buffer);
