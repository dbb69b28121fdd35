/**
 * What a verification has found sound so far, in a file, so that a next run goes on where one was ended. Called by the verb.
 *
 * A line for each item, which begins with the hash of what it is: what changed since is another item. Damage is not
 * stored, and so looked at again. A last line that is cut short is left out. Not flushed: what a crash loses is
 * only read again. Size: 17 bytes for each blob and layer of the root.
 */
import { createHash } from 'node:crypto';
import { appendFileSync, closeSync, openSync, readFileSync, rmSync } from 'node:fs';
import type { SoundItems } from '../check/under-way.js';
import { invalidArgument } from '../errors.js';
import { fsError, isAbsent } from '../system/system-errors.js';

const HEADER = 'ebbtide verify';
const HASH_DIGITS = 16;

export class SoundItemsFile implements SoundItems, Disposable {
  readonly path: string;
  readonly #known: Set<string>;
  readonly #file: number;

  private constructor(path: string, known: Set<string>, file: number) {
    this.path = path;
    this.#known = known;
    this.#file = file;
  }

  /** InvalidArgument for a file that is not one of these, or of another root. */
  static open(path: string, root: string): SoundItemsFile {
    const header = `${HEADER} ${hashOf(root)}\n`;
    const text = inFile(path, () => readIfThere(path));
    if (text !== '' && !text.startsWith(header)) throw another(path, root);
    const lines = text.slice(header.length).split('\n');
    const file = inFile(path, () => openSync(path, 'a', 0o600));
    // A line that was cut short is ended.
    inFile(path, () => appendFileSync(file, text === '' ? header : lines.at(-1) === '' ? '' : '\n'));
    return new SoundItemsFile(path, new Set(lines.filter(({ length }) => length === HASH_DIGITS)), file);
  }

  get size(): number {
    return this.#known.size;
  }

  has(item: string): boolean {
    return this.#known.has(hashOf(item));
  }

  add(item: string): void {
    const hash = hashOf(item);
    if (this.#known.has(hash)) return;
    this.#known.add(hash);
    appendFileSync(this.#file, `${hash}\n`);
  }

  /** Everything was looked at: the next run begins anew. */
  remove(): void {
    rmSync(this.path, { force: true });
  }

  [Symbol.dispose](): void {
    closeSync(this.#file);
  }
}

const hashOf = (text: string): string =>
  createHash('sha256').update(text).digest('hex').slice(0, HASH_DIGITS);

const another = (path: string, root: string): Error =>
  invalidArgument(`${path} is no state of a verification of ${root}`, {
    object: path,
    remedy: 'name a file that is not there, or the one of the run that is to go on',
  });

function inFile<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    throw fsError('use', path, error);
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch (error) {
    if (isAbsent(error)) return '';
    throw error;
  }
}
