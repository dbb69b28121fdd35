/**
 * The layer that turns one tree into another, as a tar: walks both side by side, writes what differs, and a
 * whiteout for what is missing. Reads the directories behind the mounts and needs no mount(2). The same trees
 * give the same bytes. REQUIRES: neither tree changes during the walk.
 *
 * Called by the diff service and by exports of snapshots that were committed by hand. Memory: the names in
 * the directories on the current path, and a name for each file with several links.
 */
import { createHash } from 'node:crypto';
import type { BigIntStats } from 'node:fs';
import { constants, lstat, open, readlink } from 'node:fs/promises';
import { failedPrecondition, throwIfAborted } from '../../errors.js';
import { fsError } from '../../system/system-errors.js';
import type { Mount } from '../contract.js';
import { namesIn, type Place, placePath, within } from './beneath.js';
import { deviceOf } from './entries.js';
import { type DirNode, LayerTree } from './layer-tree.js';
import { readXattrs } from './metadata.js';
import { refuseIndexed } from './overlay-index.js';
import { type BytePath, fsPath, joinPath, showPath } from './paths.js';
import type { EntryType } from './tar/tar-reader.js';
import { type NewEntry, type Sink, TarWriter } from './tar/tar-writer.js';
import { readableTarget } from './target.js';
import { WHITEOUT_PREFIX } from './whiteouts.js';

export interface DiffOptions {
  signal?: AbortSignal | undefined;
}

export interface Diffed {
  /** Digest (sha256) of the tar: the layer's diff id. */
  digest: string;
  /** Bytes of the tar. */
  size: number;
  entries: number;
}

/**
 * Writes the layer from `lower` (no mounts: empty) to `upper` to `sink`. FailedPrecondition: a file whose
 * name is not valid in a layer.
 */
export async function diffLayer(
  lower: readonly Mount[],
  upper: readonly Mount[],
  sink: Sink,
  options: DiffOptions = {},
): Promise<Diffed> {
  const hash = createHash('sha256');
  let size = 0;
  const tar = new TarWriter(async (bytes) => {
    hash.update(bytes);
    size += bytes.length;
    await sink(bytes);
  });
  const from = lower.length === 0 ? undefined : new LayerTree(readableTarget(lower));
  const to = new LayerTree(readableTarget(upper));
  const walk = new DiffWalk(from, to, tar, options.signal);
  try {
    for (const tree of [from, to]) if (tree !== undefined) await refuseIndexed(tree.target);
    await walk.run();
  } finally {
    from?.close();
    to.close();
  }
  await tar.end();
  return { digest: `sha256:${hash.digest('hex')}`, size, entries: walk.entries };
}

/** An entry of a tree. */
interface Node {
  type: EntryType | 'other';
  /** Its actual place. */
  place: Place;
  /** The place of a file's content. */
  data: Place;
  stats: BigIntStats;
  dir: DirNode | undefined;
}

/** A directory on the walk; both trees' entries in it are compared name by name. */
interface Visit {
  name: BytePath;
  below: DirNode | undefined;
  above: DirNode;
  /** Its own entry, until it is written: a directory is written when it, or anything in it, differs. */
  pending: { entry: NewEntry; parent: Visit | undefined } | undefined;
}

class DiffWalk {
  entries = 0;
  readonly #from: LayerTree | undefined;
  readonly #to: LayerTree;
  readonly #tar: TarWriter;
  readonly #signal: AbortSignal | undefined;
  /** Names of files with several links by inode, and whether one was written. */
  readonly #links = new Map<string, { name: BytePath; written: boolean }>();

  constructor(from: LayerTree | undefined, to: LayerTree, tar: TarWriter, signal: AbortSignal | undefined) {
    this.#from = from;
    this.#to = to;
    this.#tar = tar;
    this.#signal = signal;
  }

  /**
   * The entries of a directory follow it directly, in byte order of their names, as in containerd's layers.
   */
  async run(): Promise<void> {
    const root: Visit = { name: '', below: this.#from?.root, above: this.#to.root, pending: undefined };
    const way = [await this.#enter(root)];
    for (let here = way.at(-1); here !== undefined; here = way.at(-1)) {
      throwIfAborted(this.#signal);
      const name = here.names.pop();
      // Finished entries need not be kept.
      if (here.last !== undefined) here.visit.above.children.delete(here.last);
      here.last = name;
      if (name === undefined) {
        way.pop();
        continue;
      }
      const next = await this.#compare(here.visit, name);
      if (next !== undefined) way.push(await this.#enter(next));
    }
  }

  /** The names in a directory of both trees, the last one first. */
  async #enter(visit: Visit): Promise<{ visit: Visit; names: BytePath[]; last: BytePath | undefined }> {
    const { below, above } = visit;
    const names = new Set(await allNamesIn(this.#to, above));
    if (this.#from !== undefined && below !== undefined) {
      for (const name of await allNamesIn(this.#from, below)) names.add(name);
    }
    return { visit, names: [...names].sort(byBytes).reverse(), last: undefined };
  }

  /** Compares one name in a directory; returns the directory to descend into, if it is one. */
  async #compare(visit: Visit, name: BytePath): Promise<Visit | undefined> {
    const { below, above } = visit;
    const before = this.#from && below && (await nodeAt(this.#from, below, name));
    const now = await nodeAt(this.#to, above, name);
    return this.#name(visit, joinPath(visit.name, name), before, now);
  }

  async #name(
    visit: Visit,
    name: BytePath,
    before: Node | undefined,
    now: Node | undefined,
  ): Promise<Visit | undefined> {
    if (now === undefined || now.type === 'other') {
      if (before !== undefined && before.type !== 'other') await this.#whiteout(visit, name);
      return undefined;
    }
    if (name.slice(name.lastIndexOf('/') + 1).startsWith(WHITEOUT_PREFIX)) {
      throw failedPrecondition(`a layer cannot contain "${showPath(name)}": its name means a deletion`, {
        object: showPath(name),
        remedy: `rename files that begin with "${WHITEOUT_PREFIX}"`,
      });
    }
    const same = before !== undefined && (await isSame(before, now));
    if (now.dir !== undefined) return this.#directory(visit, name, before, now, now.dir, same);
    await this.#file(visit, name, now, same);
    return undefined;
  }

  async #directory(
    visit: Visit,
    name: BytePath,
    before: Node | undefined,
    now: Node,
    above: DirNode,
    same: boolean,
  ): Promise<Visit> {
    const entry = await entryOf(name, now);
    const next: Visit = { name, below: before?.dir, above, pending: { entry, parent: visit } };
    if (!same) await this.#flush(next);
    return next;
  }

  async #file(visit: Visit, name: BytePath, now: Node, same: boolean): Promise<void> {
    const inode = now.stats.nlink > 1n ? `${now.stats.dev}:${now.stats.ino}` : undefined;
    const first = inode === undefined ? undefined : this.#links.get(inode);
    // If another name of the file was written, this name no longer links to the lower file and has to be
    // written too.
    if (same && !first?.written) {
      if (inode !== undefined && first === undefined) this.#links.set(inode, { name, written: false });
      return;
    }
    await this.#flush(visit);
    const entry = await entryOf(name, now);
    this.entries++;
    if (first !== undefined) {
      await this.#tar.add({ ...entry, type: 'link', linkname: first.name, size: 0 });
      return;
    }
    if (inode !== undefined) this.#links.set(inode, { name, written: true });
    await this.#tar.add(entry, now.type === 'file' ? contentOf(now) : undefined);
  }

  async #whiteout(visit: Visit, name: BytePath): Promise<void> {
    await this.#flush(visit);
    this.entries++;
    const slash = name.lastIndexOf('/') + 1;
    const marked = `${name.slice(0, slash)}${WHITEOUT_PREFIX}${name.slice(slash)}`;
    await this.#tar.add({ name: marked, type: 'file', mode: 0 });
  }

  /** Writes the directories on the path that were not written yet, outermost first. */
  async #flush(visit: Visit): Promise<void> {
    const entries: NewEntry[] = [];
    for (let at: Visit | undefined = visit; at?.pending !== undefined; ) {
      const { entry, parent }: NonNullable<Visit['pending']> = at.pending;
      entries.push(entry);
      at.pending = undefined;
      at = parent;
    }
    for (const entry of entries.reverse()) {
      this.entries++;
      await this.#tar.add(entry);
    }
  }
}

const byBytes = (a: BytePath, b: BytePath): number => (a < b ? -1 : a > b ? 1 : 0);

/** Names in all the directories that merge; some may turn out to be hidden. */
async function allNamesIn(tree: LayerTree, dir: DirNode): Promise<BytePath[]> {
  const names: BytePath[] = [];
  for (const place of tree.placesOf(dir)) {
    try {
      for (const name of await namesIn(place)) names.push(name);
    } catch (error) {
      throw fsError('read the directory', showPath(placePath(place)), error);
    }
  }
  return names;
}

async function nodeAt(tree: LayerTree, dir: DirNode, name: BytePath): Promise<Node | undefined> {
  const found = await tree.lookup(dir, name);
  if (found.kind === 'none') return undefined;
  const dirNode = found.kind === 'directory' ? found.node : undefined;
  const place = found.kind === 'directory' ? tree.placesOf(found.node)[0]! : found.place;
  const data = (found.kind !== 'directory' && found.data) || place;
  const stats = await within(place, (path) => lstat(fsPath(path), { bigint: true }));
  return { type: typeOf(stats), place, data, stats, dir: dirNode };
}

function typeOf(stats: BigIntStats): Node['type'] {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'directory';
  if (stats.isSymbolicLink()) return 'symlink';
  if (stats.isFIFO()) return 'fifo';
  if (stats.isBlockDevice()) return 'block';
  // Sockets have no meaning in a layer, and the device 0/0 would mean a deletion.
  return stats.isCharacterDevice() && stats.rdev !== 0n ? 'char' : 'other';
}

async function entryOf(name: BytePath, node: Node): Promise<NewEntry> {
  const { stats, place, type } = node;
  const device = type === 'char' || type === 'block' ? deviceOf(Number(stats.rdev)) : {};
  return {
    name,
    type: type === 'other' ? 'file' : type,
    mode: Number(stats.mode & 0o7777n),
    uid: Number(stats.uid),
    gid: Number(stats.gid),
    size: type === 'file' ? Number(stats.size) : 0,
    mtime: stats.mtimeNs,
    ...(type === 'symlink' && { linkname: await destinationOf(node) }),
    ...device,
    xattrs: await within(place, readXattrs),
  };
}

/**
 * Whether everything that a layer records is equal. Contents are compared only if the times do not decide.
 */
async function isSame(before: Node, now: Node): Promise<boolean> {
  const [a, b] = [before.stats, now.stats];
  if (a.dev === b.dev && a.ino === b.ino && before.type !== 'directory') return true;
  if (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid || a.mtimeNs !== b.mtimeNs) return false;
  if (!equalXattrs(await within(before.place, readXattrs), await within(now.place, readXattrs))) return false;
  if (now.type === 'char' || now.type === 'block') return a.rdev === b.rdev;
  if (now.type === 'symlink') return (await destinationOf(before)) === (await destinationOf(now));
  return now.type !== 'file' || (a.size === b.size && (await equalContents(before, now)));
}

function equalXattrs(a: ReadonlyMap<string, Buffer>, b: ReadonlyMap<string, Buffer>): boolean {
  if (a.size !== b.size) return false;
  for (const [name, value] of a) if (!b.get(name)?.equals(value)) return false;
  return true;
}

const COMPARE_BYTES = 256 * 1024;

async function equalContents(a: Node, b: Node): Promise<boolean> {
  await using x = await openFile(a);
  await using y = await openFile(b);
  const [left, right] = [Buffer.allocUnsafe(COMPARE_BYTES), Buffer.allocUnsafe(COMPARE_BYTES)];
  for (let at = 0; ; ) {
    const [{ bytesRead: n }, { bytesRead: m }] = await Promise.all([
      x.read(left, 0, COMPARE_BYTES, at),
      y.read(right, 0, COMPARE_BYTES, at),
    ]);
    if (n !== m || !left.subarray(0, n).equals(right.subarray(0, m))) return false;
    if (n === 0) return true;
    at += n;
  }
}

const destinationOf = ({ place }: Node): Promise<BytePath> =>
  within(place, (path) => readlink(fsPath(path), { encoding: 'latin1' }));

// A fifo in the file's place must not block the open.
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

const openFile = ({ data }: Node) => within(data, (path) => open(fsPath(path), OPEN_FLAGS));

async function* contentOf(node: Node): AsyncGenerator<Uint8Array, void, void> {
  await using file = await openFile(node);
  for (let at = 0; ; ) {
    // A fresh buffer each time: the receiver may still be using the last one.
    const buffer = Buffer.allocUnsafe(COMPARE_BYTES);
    const { bytesRead } = await file.read(buffer, 0, COMPARE_BYTES, at);
    if (bytesRead === 0) return;
    yield buffer.subarray(0, bytesRead);
    at += bytesRead;
  }
}
