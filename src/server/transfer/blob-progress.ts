/**
 * The progress of an image's blobs as containerd's clients draw it: a tree by names, each blob first `waiting`, then on its way,
 * then `complete`, or `already exists`; layers that are unpacked are `extracting` once more. Used by pull.ts and push.ts.
 */
import type { Blob, BlobObserver } from '../../images/fetch.js';
import { workName } from '../../images/media-types.js';
import type { Progress } from '../../images/services.js';
import type { Reporter } from './progress.js';

interface UnderWay {
  blob: Blob;
  event: string;
  done: number;
  reported: number;
}

/** Between two reports of what is on its way, as containerd. */
const INTERVAL_MS = 300;

export class BlobProgress implements BlobObserver, Disposable {
  readonly #reporter: Reporter;
  /** Name of what the image's target is a part of. */
  readonly #root: string;
  readonly #state: 'downloading' | 'uploading';
  /** On their way, by digest. */
  readonly #underWay = new Map<string, UnderWay>();
  /** By digest, with names of what refers to it. */
  readonly #found = new Map<string, { blob: Blob; parents: string[] }>();
  readonly #timer: NodeJS.Timeout | undefined;

  constructor(reporter: Reporter, root: string, state: 'downloading' | 'uploading') {
    this.#reporter = reporter;
    this.#root = root;
    this.#state = state;
    if (reporter.isHeard) this.#timer = setInterval(() => this.#reportAll(), INTERVAL_MS).unref();
  }

  found(blob: Blob, parent?: Blob): void {
    if (!this.#reporter.isHeard) return;
    const parents = [parent === undefined ? this.#root : workName(parent)];
    this.#found.set(blob.digest, { blob, parents });
    this.#report(blob, 'waiting', 0);
  }

  existed(blob: Blob): void {
    this.#end(blob, 'already exists');
  }

  progress(blob: Blob, done: number): void {
    this.#goesOn(blob, this.#state, done);
  }

  /** Bytes of a layer that are unpacked. */
  unpacking({ name: digest, done }: Progress): void {
    const known = this.#found.get(digest);
    if (known !== undefined) this.#goesOn(known.blob, 'extracting', done);
  }

  /** Everything that was to be unpacked is. */
  unpacked(): void {
    for (const { blob } of [...this.#underWay.values()]) this.done(blob);
  }

  #goesOn(blob: Blob, event: string, done: number): void {
    const known = this.#underWay.get(blob.digest);
    if (known === undefined) this.#underWay.set(blob.digest, { blob, event, done, reported: 0 });
    else known.done = done;
  }

  done(blob: Blob): void {
    this.#end(blob, 'complete');
  }

  #end(blob: Blob, event: string): void {
    this.#underWay.delete(blob.digest);
    this.#report(blob, event, blob.size);
  }

  #reportAll(): void {
    for (const one of this.#underWay.values()) {
      if (one.done === one.reported) continue;
      one.reported = one.done;
      this.#report(one.blob, one.event, one.done);
    }
  }

  #report(blob: Blob, event: string, progress: number): void {
    const { mediaType, digest, size } = blob;
    this.#reporter.report({
      ...{ event, name: workName(blob), parents: this.#found.get(digest)?.parents ?? [] },
      ...{ progress, total: size, desc: { mediaType, digest, size } },
    });
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }
}
