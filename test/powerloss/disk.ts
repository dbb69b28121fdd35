/**
 * A disk that can lose its power: replays recorded calls and returns, at any moment, one of the states that the
 * files below the root may be found in afterwards.
 *
 * Promises taken from POSIX and no more: fsync and fdatasync of a file put its bytes and its size on disk, as they
 * were when the call began, and nothing of its name; fsync of a directory puts its names on disk. Names that were not
 * synced are lost from some point on, in each directory for itself, but never out of order within one: file systems
 * with a journal give that much.
 */
import assert from 'node:assert/strict';
import { closeSync, ftruncateSync, mkdirSync, openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Random } from '../support/random.js';
import { type Fate, FileImage, SECTOR } from './file-image.js';
import type { DiskEvent } from './log.js';

type Directory = Map<string, Inode>;
interface DirectoryInode {
  kind: 'directory';
  durable: Directory;
  current: Directory;
}
type Inode = DirectoryInode | { kind: 'file'; image: FileImage };

interface NameChange {
  directory: DirectoryInode;
  name: string;
  /** undefined: the name goes. */
  inode: Inode | undefined;
}
/** Changes of names that happen together. */
interface NameStep {
  number: number;
  changes: NameChange[];
}

const newDirectory = (): DirectoryInode => ({ kind: 'directory', durable: new Map(), current: new Map() });

/** Flushes of files, flushes of directories, and writes that go through by themselves. */
export type Flush = 'file' | 'directory' | 'through';
export interface DiskOptions {
  /** Treats flushes of these kinds as if they had not happened: the test of the test. */
  ignored?: readonly Flush[];
}

export class Disk {
  readonly #prefix: string;
  readonly #ignored: ReadonlySet<Flush>;
  readonly #top = newDirectory();
  readonly #open = new Map<number, { inode: Inode; path: string }>();
  /** Number of the event at which the flush under way of a descriptor began; several may be. */
  readonly #syncs = new Map<number, number[]>();
  #steps: NameStep[] = [];
  #number = 0;

  constructor(root: string, options: DiskOptions = {}) {
    this.#prefix = root;
    this.#ignored = new Set(options.ignored);
  }

  /** Begins with the files that are below the root now, all of them on disk. */
  load(): void {
    const read = (directory: DirectoryInode, path: string): void => {
      for (const entry of readdirSync(path, { withFileTypes: true })) {
        const below = join(path, entry.name);
        const inode: Inode = entry.isDirectory()
          ? newDirectory()
          : { kind: 'file', image: FileImage.of(readFileSync(below)) };
        directory.durable.set(entry.name, inode);
        directory.current.set(entry.name, inode);
        if (inode.kind === 'directory') read(inode, below);
      }
    };
    read(this.#top, this.#prefix);
  }

  apply(event: DiskEvent): void {
    this.#number++;
    switch (event.kind) {
      case 'open':
        this.#opened(event);
        return;
      case 'close':
        this.#open.delete(event.fd);
        return;
      case 'write': {
        const image = this.#file(event.fd);
        image.write(this.#number, event.offset, event.bytes);
        if (event.through && !this.#ignored.has('through'))
          image.flushRange(event.offset, event.bytes.length);
        return;
      }
      case 'truncate':
        this.#file(event.fd).truncate(this.#number, event.size);
        return;
      case 'syncBegin':
        this.#syncs.set(event.fd, [...(this.#syncs.get(event.fd) ?? []), this.#number]);
        return;
      case 'syncEnd':
        this.#synced(event.fd, event.done);
        return;
      case 'sharedMap': {
        const { path } = this.#opening(event.fd);
        // Reader slots and a mutex: LMDB makes them again when no process has the file open.
        assert.match(path, /\.mdb-lock$|-lock$/, `${path} is written through a map, which is not recorded`);
        return;
      }
      case 'unsupported':
        assert.fail(`${event.what} cannot be replayed`);
        break;
      case 'mark':
        return;
      default:
        this.#named(event);
    }
  }

  #opened(event: Extract<DiskEvent, { kind: 'open' }>): void {
    const { directory, name } = this.#at(event.path);
    if (event.created) {
      this.#step([{ directory, name, inode: { kind: 'file', image: new FileImage() } }]);
    }
    const inode = name === '' ? directory : directory.current.get(name);
    assert.ok(inode, `${event.path} was opened, and is not there`);
    if (event.truncated && inode.kind === 'file') inode.image.truncate(this.#number, 0);
    this.#open.set(event.fd, { inode, path: event.path });
  }

  #named(event: Extract<DiskEvent, { kind: 'rename' | 'link' | 'unlink' | 'mkdir' | 'rmdir' }>): void {
    if ('from' in event) {
      const from = this.#at(event.from);
      const inode = from.directory.current.get(from.name);
      assert.ok(inode, `${event.from} is not there`);
      const added = { ...this.#at(event.to), inode };
      this.#step(event.kind === 'link' ? [added] : [{ ...from, inode: undefined }, added]);
    } else if (event.path !== this.#prefix) {
      const inode = event.kind === 'mkdir' ? newDirectory() : undefined;
      this.#step([{ ...this.#at(event.path), inode }]);
    }
  }

  #step(changes: NameChange[]): void {
    for (const change of changes) set(change.directory.current, change);
    this.#steps.push({ number: this.#number, changes });
  }

  #synced(fd: number, done: boolean): void {
    const began = this.#syncs.get(fd)?.shift();
    assert.ok(began !== undefined, 'a flush ended that never began');
    const { inode } = this.#opening(fd);
    if (!done || this.#ignored.has(inode.kind)) return;
    if (inode.kind === 'file') {
      inode.image.flush(began);
      return;
    }
    const kept = this.#orderly((step) =>
      step.number < began && step.changes.some(({ directory }) => directory === inode) ? 'forced' : 'open',
    );
    for (const step of this.#steps) {
      if (kept.has(step)) for (const change of step.changes) set(change.directory.durable, change);
    }
    this.#steps = this.#steps.filter((step) => !kept.has(step));
  }

  /** The forced steps and all that come before them in a directory they share. */
  #orderly(verdict: (step: NameStep) => 'forced' | 'open'): Set<NameStep> {
    const kept = new Set<NameStep>();
    const directories = new Set<DirectoryInode>();
    for (const step of [...this.#steps].reverse()) {
      const earlier = step.changes.some(({ directory }) => directories.has(directory));
      if (!earlier && verdict(step) === 'open') continue;
      kept.add(step);
      for (const { directory } of step.changes) directories.add(directory);
    }
    return kept;
  }

  /** Writes one state the disk may be found in to the directory `to`; returns the unflushed writes dropped or torn. */
  restore(to: string, random: Random): { dropped: number; torn: number } {
    // Some losses are near-total, some nearly none.
    const keep = random.pick([0, 0.1, 0.5, 0.9, 1]);
    const fates = new Map<number, Fate>();
    const draw = (write: number): Fate => {
      let fate = fates.get(write);
      if (fate === undefined) {
        const lost = keep === 0 || random.chance(0.5) ? 'dropped' : 'torn';
        fate = random.chance(keep) ? 'kept' : lost;
        fates.set(write, fate);
      }
      return fate;
    };
    // A step that is kept brings all earlier ones of its directories with it, so few need to be picked.
    const pick = keep === 1 ? 1 : keep / (1 + this.#steps.length / 4);
    const steps = this.#orderly(() => (random.chance(pick) ? 'forced' : 'open'));
    const names = new Map<DirectoryInode, Directory>();
    const namesOf = (directory: DirectoryInode): Directory => {
      let found = names.get(directory);
      if (found === undefined) {
        found = new Map(directory.durable);
        names.set(directory, found);
      }
      return found;
    };
    for (const step of this.#steps) {
      if (!steps.has(step)) continue;
      for (const change of step.changes) set(namesOf(change.directory), change);
    }
    const write = (directory: DirectoryInode, path: string): void => {
      mkdirSync(path, { recursive: true });
      for (const [name, inode] of namesOf(directory)) {
        if (inode.kind === 'directory') write(inode, join(path, name));
        else
          writeFile(join(path, name), inode.image.contents({ of: draw, sector: () => random.chance(0.5) }));
      }
    };
    write(this.#top, to);
    const lost = [...fates.values()];
    return {
      dropped: lost.filter((fate) => fate === 'dropped').length + this.#steps.length - steps.size,
      torn: lost.filter((fate) => fate === 'torn').length,
    };
  }

  #opening(fd: number): { inode: Inode; path: string } {
    const opening = this.#open.get(fd);
    assert.ok(opening, `descriptor ${fd} is not open`);
    return opening;
  }

  #file(fd: number): FileImage {
    const { inode, path } = this.#opening(fd);
    assert.ok(inode.kind === 'file', `${path} is not a file`);
    return inode.image;
  }

  /** Directory and last name of a path; the root itself has the name ''. */
  #at(path: string): { directory: DirectoryInode; name: string } {
    assert.ok(path.startsWith(this.#prefix), `${path} is not below ${this.#prefix}`);
    const names = path
      .slice(this.#prefix.length)
      .split('/')
      .filter((name) => name !== '' && name !== '.');
    let directory = this.#top;
    for (const name of names.slice(0, -1)) {
      const inode = directory.current.get(name);
      assert.ok(inode?.kind === 'directory', `${path}: ${name} is not a directory`);
      directory = inode;
    }
    return { directory, name: names.at(-1) ?? '' };
  }
}

function set(directory: Directory, { name, inode }: NameChange): void {
  if (inode === undefined) directory.delete(name);
  else directory.set(name, inode);
}

function writeFile(path: string, { size, sectors }: { size: number; sectors: Map<number, Buffer> }): void {
  const fd = openSync(path, 'w');
  try {
    ftruncateSync(fd, size);
    const numbers = [...sectors.keys()].filter((n) => n * SECTOR < size).sort((a, b) => a - b);
    for (let i = 0; i < numbers.length; ) {
      let end = i + 1;
      while (end < numbers.length && numbers[end] === numbers[end - 1]! + 1) end++;
      const start = numbers[i]! * SECTOR;
      const run = Buffer.concat(numbers.slice(i, end).map((n) => sectors.get(n)!));
      writeSync(fd, run, 0, Math.min(run.length, size - start), start);
      i = end;
    }
  } finally {
    closeSync(fd);
  }
}
