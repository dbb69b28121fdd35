/**
 * Guards: short in-process locks on single objects (a digest, an ingest ref, a backend snapshot). A writer that
 * makes a backend object and the record naming it holds the object's guard over both; a backend sweep holds it
 * over "no record names it" and the removal. Nobody ever waits for a guard of another object.
 *
 * Guards are not re-entrant. Take several at once only through `acquireAll`, which orders them.
 */

export type Release = () => void;

export class Guards {
  readonly #tails = new Map<string, Promise<void>>();

  /** Waits for its turn and answers the release; releasing twice is harmless. */
  async acquire(name: string): Promise<Release> {
    const before = this.#tails.get(name);
    let open!: () => void;
    const mine = new Promise<void>((resolve) => {
      open = resolve;
    });
    const tail = before === undefined ? mine : before.then(() => mine);
    this.#tails.set(name, tail);
    await before;
    return () => {
      open();
      if (this.#tails.get(name) === tail) this.#tails.delete(name);
    };
  }

  /** All of these names, in one global order, so that two callers never hold what the other waits for. */
  async acquireAll(names: Iterable<string>): Promise<Release> {
    const releases: Release[] = [];
    for (const name of [...new Set(names)].sort()) releases.push(await this.acquire(name));
    return () => {
      for (const release of releases) release();
    };
  }

  async with<T>(name: string, fn: () => Promise<T>): Promise<T> {
    const release = await this.acquire(name);
    try {
      return await fn();
    } finally {
      release();
    }
  }
}

export const blobGuard = (digest: string): string => `blob\0${digest}`;
export const ingestGuard = (backendRef: string): string => `ingest\0${backendRef}`;
export const snapshotGuard = (snapshotter: string, backendName: string): string =>
  `snapshot\0${snapshotter}\0${backendName}`;
