/**
 * Guards: short in-process locks on single objects (a digest, an ingest ref, a backend snapshot), between
 * writers of a backend object and its record, and sweeps that remove backend objects.
 *
 * A writer shares the object's guard from before its backend call until its record is visible. A backend
 * sweep holds the guard exclusively from the check that no record names the object to its removal, and waits
 * for nothing but that backend in between. A share waits only for an exclusive holder, never for one that is
 * waiting itself, so a writer whose commit is delayed by another writer's transaction cannot end up waiting
 * for itself.
 *
 * Exclusive guards are not re-entrant (shares are). Take several of them only through `acquireAll`, which
 * orders them.
 */

export type Release = () => void;

/** State of one name; dropped when no caller holds it or waits for it. */
interface Guard {
  shares: number;
  held: boolean;
  /** Waiters for a share, and waiters for exclusive access, each in order of arrival; usually none. */
  sharers: (() => void)[] | undefined;
  holders: (() => void)[] | undefined;
}

const FREE: Readonly<Guard> = { shares: 0, held: false, sharers: undefined, holders: undefined };

export class Guards {
  readonly #guards = new Map<string, Guard>();

  /** Waits until no other caller holds or shares it, in order of arrival. Releasing twice is harmless. */
  async acquire(name: string): Promise<Release> {
    const guard = this.#of(name);
    if (guard.held || guard.shares > 0 || guard.holders !== undefined) {
      guard.holders ??= [];
      const { holders } = guard;
      // The releasing holder hands the guard over, so that no other caller gets in between.
      await new Promise<void>((resolve) => holders.push(resolve));
    } else {
      guard.held = true;
    }
    return once(() => {
      guard.held = false;
      this.#pass(name, guard);
    });
  }

  /** Waits only while it is held exclusively; any number may share. */
  async share(name: string): Promise<Release> {
    const guard = this.#of(name);
    if (guard.held) {
      guard.sharers ??= [];
      const { sharers } = guard;
      await new Promise<void>((resolve) => sharers.push(resolve));
    } else guard.shares++;
    return once(() => {
      guard.shares--;
      this.#pass(name, guard);
    });
  }

  /** The guard at once, or undefined when anyone holds it, shares it or waits for it. */
  tryAcquire(name: string): Release | undefined {
    if (this.#guards.has(name)) return undefined;
    const guard = this.#of(name);
    guard.held = true;
    return once(() => {
      guard.held = false;
      this.#pass(name, guard);
    });
  }

  /**
   * Takes those of the names that no caller holds, shares or waits for, at once, until `release` of the result.
   */
  tryAcquireMany(names: readonly string[]): { taken: boolean[]; release: Release } {
    const guards = new Map<string, Guard>();
    const taken = names.map((name) => {
      if (this.#guards.has(name)) return false;
      const guard = { ...FREE, held: true };
      this.#guards.set(name, guard);
      guards.set(name, guard);
      return true;
    });
    const release = once(() => {
      for (const [name, guard] of guards) {
        guard.held = false;
        this.#pass(name, guard);
      }
    });
    return { taken, release };
  }

  /** Takes all of these names, in one global order, so that two callers never wait for each other. */
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

  #of(name: string): Guard {
    let guard = this.#guards.get(name);
    if (guard === undefined) {
      guard = { ...FREE };
      this.#guards.set(name, guard);
    }
    return guard;
  }

  /** After a release: lets in all sharers, or else the next exclusive waiter. */
  #pass(name: string, guard: Guard): void {
    if (guard.held) return;
    const { sharers, holders } = guard;
    if (sharers !== undefined) {
      guard.sharers = undefined;
      guard.shares += sharers.length;
      for (const enter of sharers) enter();
    }
    if (guard.shares > 0) return;
    const enter = holders?.shift();
    if (holders?.length === 0) guard.holders = undefined;
    if (enter === undefined) {
      this.#guards.delete(name);
      return;
    }
    guard.held = true;
    enter();
  }
}

function once(release: Release): Release {
  let done = false;
  return () => {
    if (done) return;
    done = true;
    release();
  };
}

export const blobGuard = (digest: string): string => `blob\0${digest}`;
export const ingestGuard = (backendRef: string): string => `ingest\0${backendRef}`;
export const snapshotGuard = (snapshotter: string, backendName: string): string =>
  `snapshot\0${snapshotter}\0${backendName}`;
/** Of the directory of an activation; and of its name, which has one call at a time. */
export const mountGuard = (directory: string): string => `mount\0${directory}`;
export const mountNameGuard = (namespace: string, name: string): string => `mount\0${namespace}\0${name}`;
