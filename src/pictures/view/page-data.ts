/**
 * What a page is made of, as JSON: written by data.ts, read by the script of the page (page/). Names are cut, lists bounded.
 */

export type NodeKind =
  | 'host'
  | 'namespace'
  | 'group'
  | 'garbage'
  | 'orphans'
  | 'files'
  /** A root: kind in `of`. */
  | 'root'
  /** A blob, snapshot or ingest: kind in `of`. */
  | 'leaf'
  /** What is too small to be shown by itself. */
  | 'rest';

export interface PageNode {
  /** Index of the node above; -1: none. Nodes come after the ones above them. */
  readonly up: number;
  readonly kind: NodeKind;
  /** image, container, lease, ingest, sandbox, content, snapshot. */
  readonly of?: string;
  readonly name: string;
  readonly bytes: number;
  /** Of a rest: how many. */
  readonly count?: number;
  /** Seconds since 1970: when it was used last. */
  readonly used?: number;
  /** Of a root: its index in the roots. */
  readonly root?: number;
  /** Of a leaf: how many roots keep it, 10 meaning as many or more; index in the ways; index in the sets. */
  readonly keepers?: number;
  readonly way?: number;
  readonly set?: number;
}

export interface PageRoot {
  readonly of: string;
  readonly namespace: string;
  readonly name: string;
  /** Bytes that its removal would free, and that it keeps alone or with others. */
  readonly frees: number;
  readonly keeps: number;
  readonly used?: number;
}

/** A step from a root to a leaf: how it is referred to, and what it is. */
export type Step = readonly [via: string, object: string];

export interface PageData {
  readonly title: string;
  /** Seconds since 1970. */
  readonly at: number;
  readonly bytes: number;
  readonly kept: number;
  readonly garbage: number;
  readonly orphans: number;
  /** False: sizes are those of the records. */
  readonly isMeasured: boolean;
  readonly nodes: readonly PageNode[];
  readonly roots: readonly PageRoot[];
  /** Roots that are not listed. */
  readonly otherRoots: number;
  readonly ways: readonly (readonly Step[])[];
  /** Bytes that go when all of these roots are removed; undefined: too many roots have too much in common. */
  readonly sets?: readonly (readonly [bytes: number, ...roots: number[]])[];
  /** Some sets are left out: what goes can be more. */
  readonly isAtLeast: boolean;
}
