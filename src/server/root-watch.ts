/**
 * Checks every few seconds whether the root of a daemon is still the directory that was opened, so that the
 * log explains refused writes. Called by daemon.ts.
 */
import { HeldDirectory } from '../system/held-directory.js';
import { messageOf } from '../system/system-errors.js';

const EVERY_MS = 2000;

export class RootWatch {
  readonly #directory: HeldDirectory;
  readonly #timer: NodeJS.Timeout;
  readonly #log: (level: 'error' | 'info', message: string) => void;
  #isInPlace = true;

  /** @param root absolute, of an open store */
  constructor(root: string, log: (level: 'error' | 'info', message: string) => void) {
    this.#directory = HeldDirectory.open(root);
    this.#log = log;
    this.#timer = setInterval(() => this.#look(), EVERY_MS).unref();
  }

  /** The root as this process reaches it, whatever its name leads to. */
  get path(): string {
    return this.#directory.at;
  }

  /** Of the root that was opened, for clients that look for its daemon. */
  get identity(): string {
    return this.#directory.identity;
  }

  #look(): void {
    const wasInPlace = this.#isInPlace;
    try {
      this.#directory.verify();
      this.#isInPlace = true;
      if (!wasInPlace) this.#log('info', `the root ${this.#directory.path} is back`);
    } catch (error) {
      this.#isInPlace = false;
      if (wasInPlace) this.#log('error', messageOf(error));
    }
  }

  close(): void {
    clearInterval(this.#timer);
    this.#directory.release();
  }
}
