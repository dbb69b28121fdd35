/**
 * The layer that turns one tree into another, as a tar: walks both side by side, writes what differs, and a
 * whiteout for what is missing. Reads the directories of the mounts and needs no mount(2). The same trees
 * give the same bytes. REQUIRES: neither tree changes during the walk.
 *
 * Called by the diff service and by exports of snapshots that were committed by hand. Memory: the names in
 * the directories on the current path, and a name for each file with several links.
 */
import { createHash } from 'node:crypto';
import { constants, lstat, open, readlink } from 'node:fs/promises';
import { failedPrecondition, throwIfAborted } from '../../errors.js';
import { fsError } from '../../system/system-errors.js';
import type { Mount } from '../contract.js';
import { namesIn, type Place, placePath, within } from './beneath.js';
import { deviceOf } from './entries.js';
import { type DirNode, LayerTree } from './layer-tree.js';
import { LookedAt, type Seen, Status } from './looked-at.js';
import { isForbidden, readXattrs } from './metadata.js';
import { refuseIndexed } from './overlay-index.js';
import { type BytePath, fsPath, joinPath, showPath } from './paths.js';
import type { EntryType } from './tar/tar-reader.js';
import { type NewEntry, type Sink, TarWriter } from './tar/tar-writer.js';
import { readableTarget } from './target.js';
import { WHITEOUT_PREFIX } from './whiteouts.js';

/** How a layer is made. */
export interface DiffOptions {
  /** Ends it between two entries. */
  signal?: AbortSignal | undefined;
}

/** The layer that was made. */
export interface Diffed {
  /** Digest (sha256) of the tar: the layer's diff id. */
  digest: string;
  /** Bytes of the tar. */
  size: number;
  /** Entries of the archive. */
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
  const known = new LookedAt();
  const treeOf = (mounts: readonly Mount[]) => new LayerTree(readableTarget(mounts), undefined, known.look);
  const from = lower.length === 0 ? undefined : treeOf(lower);
  const to = treeOf(upper);
  const walk = new DiffWalk(from, to, known, tar, options.signal);
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
  status: Status;
  /** What is known of it without another look, of a file's content too. */
  seen: Seen | undefined;
  content: Buffer | undefined;
  dir: DirNode | undefined;
}

/** The position of the walk in a directory. */
interface Entered {
  visit: Visit;
  names: AsyncGenerator<BytePath, void, void>;
  last: BytePath | undefined;
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
  readonly #known: LookedAt;
  readonly #tar: TarWriter;
  readonly #signal: AbortSignal | undefined;
  /** Names of files with several links by inode, and whether one was written. */
  readonly #links = new Map<string, { name: BytePath; written: boolean }>();

  constructor(
    from: LayerTree | undefined,
    to: LayerTree,
    known: LookedAt,
    tar: TarWriter,
    signal: AbortSignal | undefined,
  ) {
    this.#from = from;
    this.#to = to;
    this.#known = known;
    this.#tar = tar;
    this.#signal = signal;
  }

  /**
   * The entries of a directory follow it directly, in byte order of their names, as in containerd's layers.
   */
  async run(): Promise<void> {
    const root: Visit = { name: '', below: this.#from?.root, above: this.#to.root, pending: undefined };
    const way = [await this.#enter(root)];
    try {
      for (let here = way.at(-1); here !== undefined; here = way.at(-1)) {
        throwIfAborted(this.#signal);
        const { value: name } = await here.names.next();
        // What is done need not be remembered.
        if (here.last !== undefined) here.visit.above.children.delete(here.last);
        here.last = name ?? undefined;
        if (here.last === undefined) {
          way.pop();
          continue;
        }
        const next = await this.#compare(here.visit, here.last);
        if (next !== undefined) way.push(await this.#enter(next));
      }
    } finally {
      for (const { names } of way) await names.return();
    }
  }

  /** The names in a directory of both trees. */
  async #enter(visit: Visit): Promise<Entered> {
    const { below, above } = visit;
    const places = this.#to.placesOf(above);
    const names = new Set(await allNamesIn(places));
    if (this.#from !== undefined && below !== undefined) {
      const others = this.#from.placesOf(below);
      for (const name of await allNamesIn(others)) names.add(name);
      places.push(...others);
    }
    return { visit, names: this.#known.names(places, [...names].sort(byBytes)), last: undefined };
  }

  /** Compares one name in a directory; returns the directory to descend into, if it is one. */
  async #compare(visit: Visit, name: BytePath): Promise<Visit | undefined> {
    const { below, above } = visit;
    const before = this.#from && below && (await this.#nodeAt(this.#from, below, name));
    const now = await this.#nodeAt(this.#to, above, name);
    return this.#name(visit, joinPath(visit.name, name), before, now);
  }

  async #nodeAt(tree: LayerTree, dir: DirNode, name: BytePath): Promise<Node | undefined> {
    const found = await tree.lookup(dir, name);
    if (found.kind === 'none') return undefined;
    const dirNode = found.kind === 'directory' ? found.node : undefined;
    const place = found.kind === 'directory' ? tree.placeOf(found.node) : found.place;
    const data = (found.kind !== 'directory' && found.data) || place;
    const seen = this.#known.seen(place);
    const status = seen?.status ?? (await within(place, statusAt));
    const { content } = (data === place ? seen : this.#known.seen(data)) ?? {};
    return { type: typeOf(status), place, data, status, seen, content, dir: dirNode };
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
    const inode = now.status.nlink > 1 ? now.status.inode : undefined;
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
async function allNamesIn(places: readonly Place[]): Promise<BytePath[]> {
  const names: BytePath[] = [];
  for (const place of places) {
    try {
      for (const name of await namesIn(place)) names.push(name);
    } catch (error) {
      throw fsError('read the directory', showPath(placePath(place)), error);
    }
  }
  return names;
}

async function statusAt(path: BytePath): Promise<Status> {
  const { mode, uid, gid, size, mtimeNs, rdev, nlink, dev, ino } = await lstat(fsPath(path), {
    bigint: true,
  });
  const [bits, blocks] = [Number(mode), Number(rdev)];
  return new Status(
    bits,
    Number(uid),
    Number(gid),
    Number(size),
    mtimeNs,
    blocks,
    Number(nlink),
    `${dev}:${ino}`,
  );
}

function typeOf(status: Status): Node['type'] {
  if (status.isFile()) return 'file';
  if (status.isDirectory()) return 'directory';
  if (status.isSymbolicLink()) return 'symlink';
  if (status.isFIFO()) return 'fifo';
  if (status.isBlockDevice()) return 'block';
  // Sockets mean nothing in a layer, and the device 0/0 would mean a deletion.
  return status.isCharacterDevice() && status.rdev !== 0 ? 'char' : 'other';
}

async function entryOf(name: BytePath, node: Node): Promise<NewEntry> {
  const { status, type } = node;
  const device = type === 'char' || type === 'block' ? deviceOf(status.rdev) : {};
  return {
    name,
    type: type === 'other' ? 'file' : type,
    mode: status.mode & 0o7777,
    uid: status.uid,
    gid: status.gid,
    size: type === 'file' ? status.size : 0,
    mtime: status.mtimeNs,
    ...(type === 'symlink' && { linkname: await destinationOf(node) }),
    ...device,
    xattrs: await xattrsOf(node),
  };
}

/**
 * Whether everything that a layer records is equal. Contents are compared only if the times do not decide.
 */
async function isSame(before: Node, now: Node): Promise<boolean> {
  const [a, b] = [before.status, now.status];
  if (a.inode === b.inode && before.type !== 'directory') return true;
  if (a.mode !== b.mode || a.uid !== b.uid || a.gid !== b.gid || a.mtimeNs !== b.mtimeNs) return false;
  if (!equalXattrs(await xattrsOf(before), await xattrsOf(now))) return false;
  if (now.type === 'char' || now.type === 'block') return a.rdev === b.rdev;
  if (now.type === 'symlink') return (await destinationOf(before)) === (await destinationOf(now));
  return now.type !== 'file' || (a.size === b.size && (await equalContents(before, now)));
}

async function xattrsOf({ seen, place }: Node): Promise<ReadonlyMap<string, Buffer>> {
  if (seen === undefined) return within(place, readXattrs);
  if (seen.xattrs.size === 0) return seen.xattrs;
  return new Map([...seen.xattrs].filter(([name]) => !isForbidden(name)));
}

function equalXattrs(a: ReadonlyMap<string, Buffer>, b: ReadonlyMap<string, Buffer>): boolean {
  if (a.size !== b.size) return false;
  for (const [name, value] of a) if (!b.get(name)?.equals(value)) return false;
  return true;
}

const COMPARE_BYTES = 256 * 1024;

async function equalContents(a: Node, b: Node): Promise<boolean> {
  if (a.content !== undefined && b.content !== undefined) return a.content.equals(b.content);
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

const destinationOf = async ({ seen, place }: Node): Promise<BytePath> =>
  seen?.destination ?? within(place, (path) => readlink(fsPath(path), { encoding: 'latin1' }));

// A fifo in the file's place must not block the open.
const OPEN_FLAGS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

const openFile = ({ data }: Node) => within(data, (path) => open(fsPath(path), OPEN_FLAGS));

function contentOf(node: Node): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
  const { content } = node;
  if (content === undefined) return readContent(node);
  // A copy, where all of its batch would stay with the receiver.
  return content.length === 0 ? [] : [Buffer.from(content)];
}

async function* readContent(node: Node): AsyncGenerator<Uint8Array, void, void> {
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
