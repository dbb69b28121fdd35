/**
 * A mark in the content directory that says which tree its blobs were written under, and how far that tree had come. A
 * tree that is older than the mark was set back (an older copy was restored, an old disk mounted), and one with another name is
 * another store's: what it does not name is not garbage. Called by orphan-guard.ts, and when a store is closed.
 *
 * The tree's number grows first, durably; the mark follows. What a crash loses of the mark makes it older than the tree,
 * which says nothing. Trees in memory and in etcd have no mark.
 */
import { randomUUID } from 'node:crypto';
import type { ContentBackend } from '../../backends/contract.js';
import type { Engine } from '../../engine/contract.js';
import { metaKey } from '../../engine/schema/keys.js';

interface Mark {
  readonly tree: string;
  /** Grows with each mark. */
  readonly number: number;
}

const TREE = metaKey('tree');

export class TreeMark {
  readonly #engine: Engine;
  readonly #content: ContentBackend;
  /** Revision of the last mark. */
  #marked: number;

  constructor(engine: Engine, content: ContentBackend) {
    this.#engine = engine;
    this.#content = content;
    this.#marked = engine.revision;
  }

  /** Why the tree cannot be the one that the blobs were written under; undefined when nothing says so. */
  async doubt(): Promise<string | undefined> {
    const mark = this.#isKept ? parse(await this.#content.readMark?.()) : undefined;
    if (mark === undefined) return undefined;
    const tree = this.#stored;
    if (tree?.tree !== mark.tree) return 'the metadata is not that under which the content was written';
    return tree.number < mark.number ? 'the metadata is older than the content' : undefined;
  }

  /** The content directory is not one that this tree was ever used with. */
  async isUnknown(): Promise<boolean> {
    return this.#isKept && this.#stored !== undefined && (await this.#content.readMark?.()) === undefined;
  }

  /** Marks the content as this tree's, if the tree has changed since. */
  async renew(): Promise<void> {
    if (!this.#isKept || this.#engine.revision === this.#marked) return;
    const { tree, number } = this.#stored ?? { tree: randomUUID(), number: 0 };
    const mark = JSON.stringify({ tree, number: number + 1 });
    await this.#engine.update((tx) => tx.put(TREE, mark), { background: true });
    await this.#content.writeMark?.(mark);
    this.#marked = this.#engine.revision;
  }

  /** As `renew`, also where an earlier mark was another tree's. */
  async adopt(): Promise<void> {
    this.#marked = -1;
    await this.renew();
  }

  get #isKept(): boolean {
    return this.#engine.kind === 'lmdb' && this.#content.writeMark !== undefined;
  }

  get #stored(): Mark | undefined {
    return parse(this.#engine.get(TREE));
  }
}

/** Undefined for what a power cut or another program left there. */
function parse(text: unknown): Mark | undefined {
  if (typeof text !== 'string') return undefined;
  try {
    const { tree, number } = JSON.parse(text) as Partial<Mark>;
    const isMark = typeof tree === 'string' && typeof number === 'number' && Number.isSafeInteger(number);
    return isMark ? { tree, number } : undefined;
  } catch {
    return undefined;
  }
}
