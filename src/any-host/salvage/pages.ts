/**
 * The pages of a damaged file, as a salvage needs them: each is read once to know what is in it. What the fields of a record say is
 * kept then, so that only what is written is read a second time, and pages that others lead from (branches, leaves of buckets). Called by the files
 * of salvage/. Memory: some hundred bytes for each page that has a record.
 */
import type { BranchPage, BucketValue, LeafPage, PageScan } from '../../bolt/scan.js';
import type { Steps } from '../../system/turns.js';
import { type Facts, factsIn } from './facts.js';
import { CONTENT_PARTS, NAMESPACE_PARTS, type Path, readTree, treeInPage } from './shapes.js';

/** Of a namespace whose name is not in its page. No name is empty. */
export const UNKNOWN = '';

export interface Root {
  readonly page: number;
  /** Of the bucket that the page may be of. */
  readonly path: Path;
}

export class Pages {
  readonly scan: PageScan;
  /** Those that lead to others, as far as pages are known. */
  readonly branches: number[] = [];
  /** Those that look like the first of a tree, or of a part of it. */
  readonly roots: Root[] = [];
  /** Those of buckets only, which may be records. */
  readonly leaves: number[] = [];
  /** By the page that a record begins with. */
  readonly #facts = new Map<number, Facts>();
  readonly #known = new Set<number>();
  #hasAll = false;

  constructor(scan: PageScan) {
    this.scan = scan;
  }

  /** Looks at all that is not known yet. */
  *findAll(): Steps {
    if (this.#hasAll) return;
    this.#hasAll = true;
    yield* this.scan.find(
      (id) => this.#known.has(id),
      (page) => this.#note(page),
    );
  }

  /** Undefined for what is not whole. */
  page(id: number): LeafPage | BranchPage | undefined {
    const page = this.scan.page(id);
    if (page !== undefined) this.#note(page);
    return page;
  }

  bucket(value: Buffer): BucketValue | undefined {
    return this.scan.bucket(value);
  }

  /** Of the record that an entry is; undefined when a page of it is not whole. */
  facts(value: Buffer): Facts | undefined {
    const root = this.scan.bucket(value)?.page ?? 0;
    if (root !== 0 && !this.#facts.has(root)) this.page(root);
    const known = this.#facts.get(root);
    if (known !== undefined) return known;
    const pages: number[] = [];
    const tree = readTree(this, value, pages);
    const facts = tree && factsIn(tree, pages);
    if (facts !== undefined && root !== 0) this.#facts.set(root, facts);
    return facts;
  }

  /** Of a record that begins with a page, if they are known. */
  factsAt(page: number): Facts | undefined {
    return this.#facts.get(page);
  }

  #note(page: LeafPage | BranchPage): void {
    const { id } = page;
    if (this.#known.has(id)) return;
    this.#known.add(id);
    if (page.kind === 'branch') {
      this.branches.push(id);
      return;
    }
    const { entries } = page;
    if (entries.some(({ key, isBucket }) => !isBucket && (key === 'createdat' || key === 'ref'))) {
      // All of it is here, but for buckets with pages of their own.
      const tree = treeInPage(this, page);
      if (tree !== undefined) this.#facts.set(id, factsIn(tree, [id]));
      return;
    }
    const has = (name: string): boolean => entries.some(({ key, isBucket }) => isBucket && key === name);
    if (has('v1')) this.roots.push({ page: id, path: [] });
    if (entries.some(({ key, isBucket, value }) => key === 'version' && !isBucket && value.length <= 2))
      this.roots.push({ page: id, path: ['v1'] });
    if (!entries.every(({ isBucket }) => isBucket)) return;
    if (entries.length > 1 && entries.every(({ key }) => NAMESPACE_PARTS.includes(key)))
      this.roots.push({ page: id, path: ['v1', UNKNOWN] });
    if (entries.length > 0 && !PARTS.some(has)) this.leaves.push(id);
  }
}

/** What has everything below it. */
const PARTS: readonly string[] = ['v1', ...NAMESPACE_PARTS, ...CONTENT_PARTS];
