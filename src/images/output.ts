/**
 * The destination of an exported layout: a directory or a tar. Both are written beside their final name and
 * renamed at the end, so that an interrupted export leaves nothing that looks complete. Called by export.
 */
import { randomBytes } from 'node:crypto';
import type { Stats } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rename, rm, rmdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { type Sink, TarWriter } from '../backends/archive/tar/tar-writer.js';
import { orAbsent } from '../backends/files.js';
import { alreadyExists } from '../errors.js';
import { syncDirectory } from '../system/sync-directory.js';
import { errnoOf, fsError } from '../system/system-errors.js';

/** Receives the bytes of a tar; is done with them when the promise resolves. */
export interface Borrower {
  /** Resolves when it wants more. */
  borrow: Sink;
}

/** A path, or what receives the bytes of a tar: a function that keeps them, or one that is done with them when it wants more. */
export type Output = string | Sink | Borrower;

export interface LayoutWriter {
  /** Whether it keeps none of the bytes that it is given. */
  readonly borrows: boolean;
  /** REQUIRES: `content` yields exactly `size` bytes. */
  blob(algorithm: string, hex: string, size: number, content: AsyncIterable<Uint8Array>): Promise<void>;
  file(name: string, bytes: Uint8Array): Promise<void>;
  /** Moves everything to its final name, durably. */
  finish(): Promise<void>;
  /** Removes what was written. */
  abandon(): Promise<void>;
}

/**
 * A pipe or a device takes the bytes of a tar, as standard output does.
 *
 * AlreadyExists: the directory is not empty.
 */
export async function openOutput(output: Output): Promise<LayoutWriter> {
  if (typeof output !== 'string') {
    const nothing = async (): Promise<void> => undefined;
    const borrows = typeof output !== 'function';
    return new TarLayout(borrows ? (bytes) => output.borrow(bytes) : output, borrows, nothing, nothing);
  }
  try {
    const there = await orAbsent(stat(output));
    if (there !== null && !there.isFile() && !there.isDirectory()) return await openStream(output);
    return output.endsWith('.tar') ? await openTar(output) : await openDirectory(output, there);
  } catch (error) {
    throw fsError('export to', output, error);
  }
}

/** Turns errors of the disk into errors about the output; others are rethrown. */
async function onDisk<T>(output: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    throw errnoOf(error) === undefined ? error : fsError('export to', output, error);
  }
}

const beside = (path: string): string =>
  `${path.replace(/\/+$/, '')}.partial-${randomBytes(4).toString('hex')}`;

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) done += (await file.write(bytes, done)).bytesWritten;
}

// --------------------------------------------------------------------------------------------------------- tar

async function openTar(path: string): Promise<LayoutWriter> {
  const partial = beside(path);
  const file = await open(partial, 'wx', 0o644);
  const finish = async (): Promise<void> => {
    await file.sync();
    await file.close();
    await rename(partial, path);
    await syncDirectory(dirname(path));
  };
  return new TarLayout(
    (bytes) => onDisk(path, writeAll(file, bytes)),
    true,
    () => onDisk(path, finish()),
    async () => {
      await file.close();
      await rm(partial, { force: true });
    },
  );
}

/** Nothing is written beside it, and what was written cannot be taken back. */
async function openStream(path: string): Promise<LayoutWriter> {
  const file = await open(path, 'w');
  const close = (): Promise<void> => onDisk(path, file.close());
  return new TarLayout((bytes) => onDisk(path, writeAll(file, bytes)), true, close, close);
}

/** Directories come before what is in them; times are 0, so that the same images give the same bytes. */
class TarLayout implements LayoutWriter {
  readonly borrows: boolean;
  readonly #tar: TarWriter;
  readonly #finish: () => Promise<void>;
  readonly #abandon: () => Promise<void>;
  readonly #directories = new Set<string>();

  constructor(sink: Sink, borrows: boolean, finish: () => Promise<void>, abandon: () => Promise<void>) {
    this.borrows = borrows;
    this.#tar = new TarWriter(sink);
    this.#finish = finish;
    this.#abandon = abandon;
  }

  async blob(
    algorithm: string,
    hex: string,
    size: number,
    content: AsyncIterable<Uint8Array>,
  ): Promise<void> {
    for (const name of ['blobs', `blobs/${algorithm}`]) {
      if (this.#directories.has(name)) continue;
      this.#directories.add(name);
      await this.#tar.add({ name, type: 'directory', mode: 0o755 });
    }
    await this.#tar.add({ name: `blobs/${algorithm}/${hex}`, type: 'file', mode: 0o444, size }, content);
  }

  file(name: string, bytes: Uint8Array): Promise<void> {
    return this.#tar.add({ name, type: 'file', mode: 0o644, size: bytes.length }, [bytes]);
  }

  async finish(): Promise<void> {
    await this.#tar.end();
    await this.#finish();
  }

  abandon(): Promise<void> {
    return this.#abandon();
  }
}

// --------------------------------------------------------------------------------------------------- directory

async function openDirectory(path: string, there: Stats | null): Promise<LayoutWriter> {
  if (there?.isFile()) {
    throw alreadyExists(`${path} is a file`, {
      object: path,
      remedy: 'name a new or an empty directory, or a tar by a name that ends in .tar',
    });
  }
  if (there !== null && (await readdir(path)).length > 0) {
    throw alreadyExists(`${path} is not empty`, {
      object: path,
      remedy: 'export to a new or an empty directory',
    });
  }
  const partial = beside(path);
  await mkdir(partial, { mode: 0o755 });
  return new DirectoryLayout(path, partial);
}

class DirectoryLayout implements LayoutWriter {
  readonly borrows = true;
  readonly #path: string;
  readonly #partial: string;
  readonly #directories = new Set<string>();

  constructor(path: string, partial: string) {
    this.#path = path;
    this.#partial = partial;
    this.#directories.add(partial);
  }

  blob(algorithm: string, hex: string, _size: number, content: AsyncIterable<Uint8Array>): Promise<void> {
    return onDisk(this.#path, this.#blob(algorithm, hex, content));
  }

  file(name: string, bytes: Uint8Array): Promise<void> {
    return onDisk(this.#path, this.#write(join(this.#partial, name), 0o644, [bytes]));
  }

  async #blob(algorithm: string, hex: string, content: AsyncIterable<Uint8Array>): Promise<void> {
    const dir = join(this.#partial, 'blobs', algorithm);
    await mkdir(dir, { recursive: true, mode: 0o755 });
    this.#directories.add(join(this.#partial, 'blobs')).add(dir);
    await this.#write(join(dir, hex), 0o444, content);
  }

  async #write(
    path: string,
    mode: number,
    content: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
  ): Promise<void> {
    const file = await open(path, 'wx', mode);
    try {
      for await (const chunk of content) await writeAll(file, chunk);
      await file.sync();
    } finally {
      await file.close();
    }
  }

  finish(): Promise<void> {
    return onDisk(this.#path, this.#finish());
  }

  async #finish(): Promise<void> {
    for (const dir of this.#directories) await syncDirectory(dir);
    await orAbsent(rmdir(this.#path));
    await rename(this.#partial, this.#path);
    await syncDirectory(dirname(this.#path));
  }

  abandon(): Promise<void> {
    return rm(this.#partial, { recursive: true, force: true });
  }
}
