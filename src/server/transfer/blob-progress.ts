/**
 * The progress of an image's blobs as containerd's clients draw it: a tree by names, each blob first `waiting`, then on its way,
 * then `complete`, or `already exists`. Used by pull.ts and push.ts.
 */
import type { Blob, FetchObserver } from '../../images/fetch.js';
import { workName } from '../../images/media-types.js';
import type { Reporter } from './progress.js';

/** Between two reports of what is on its way, as containerd. */
const INTERVAL_MS = 300;

export class BlobProgress implements FetchObserver, Disposable {
  readonly #reporter: Reporter;
  /** Name of what the image's target is a part of. */
  readonly #root: string;
  readonly #state: 'downloading' | 'uploading';
  /** On their way, by digest. */
  readonly #underWay = new Map<string, { blob: Blob; done: number; reported: number }>();
  readonly #parents = new Map<string, string[]>();
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(reporter: Reporter, root: string, state: 'downloading' | 'uploading') {
    this.#reporter = reporter;
    this.#root = root;
    this.#state = state;
    if (reporter.isHeard) this.#timer = setInterval(() => this.#reportAll(), INTERVAL_MS).unref();
  }

  found(blob: Blob, parent?: Blob): void {
    this.#parents.set(blob.digest, [parent === undefined ? this.#root : workName(parent)]);
    this.#report(blob, 'waiting', 0);
  }

  existed(blob: Blob): void {
    this.#end(blob, 'already exists');
  }

  progress(blob: Blob, done: number): void {
    const known = this.#underWay.get(blob.digest);
    if (known === undefined) this.#underWay.set(blob.digest, { blob, done, reported: 0 });
    else known.done = done;
  }

  done(blob: Blob): void {
    this.#end(blob, 'complete');
  }

  #end(blob: Blob, event: string): void {
    this.#underWay.delete(blob.digest);
    this.#report(blob, event, blob.size);
    this.#parents.delete(blob.digest);
  }

  #reportAll(): void {
    for (const one of this.#underWay.values()) {
      if (one.done === one.reported) continue;
      one.reported = one.done;
      this.#report(one.blob, this.#state, one.done);
    }
  }

  #report(blob: Blob, event: string, progress: number): void {
    const { mediaType, digest, size } = blob;
    this.#reporter.report({
      ...{ event, name: workName(blob), parents: this.#parents.get(digest) ?? [] },
      ...{ progress, total: size, desc: { mediaType, digest, size } },
    });
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
