/**
 * What to type to remove what is found in another program's root: with ctr, or with BuildKit's own command. Called by orphans.ts.
 */
import { components } from '../engine/schema/keys.js';
import { digestOf } from '../model/digest.js';
import type { ForeignRoot } from './open.js';
import { quoted } from './quoted.js';

export interface Commands {
  /** A collection, which covers all namespaces. */
  collect(): string;
  sweepContent(): string;
  sweepSnapshots(snapshotter: string): string;
}

/** Name of the temporary objects that the commands create. */
const NAME = 'ebbtide-sweep';

export function commandsFor({ places, loaded }: ForeignRoot): Commands {
  if (places.kind === 'buildkit') return new BuildKitCommands(places.isDockers);
  const [first] = [...loaded.engine.scan('namespaces', { limit: 1 })].map(
    ([record]) => components(record)[1],
  );
  return new CtrCommands(first ?? 'default');
}

/**
 * containerd sweeps a backend only after a removal in it, and collects at once only for `leases rm --sync`.
 */
class CtrCommands implements Commands {
  readonly #anywhere: string;

  /** `anywhere`: a collection covers all namespaces, whichever is named. */
  constructor(anywhere: string) {
    this.#anywhere = anywhere;
  }

  collect(): string {
    const ctr = `ctr -n ${quoted(this.#anywhere)} leases`;
    return `${ctr} create --id ${NAME} && ${ctr} rm --sync ${NAME}`;
  }

  sweepContent(): string {
    const ctr = `ctr -n ${quoted(this.#anywhere)} content`;
    const digest = digestOf(Buffer.from(`${NAME}\n`));
    return `echo ${NAME} | ${ctr} ingest ${NAME} && ${ctr} rm ${digest} && ${this.collect()}`;
  }

  sweepSnapshots(snapshotter: string): string {
    const ctr = `ctr -n ${quoted(this.#anywhere)} snapshots --snapshotter ${quoted(snapshotter)}`;
    return `${ctr} prepare ${NAME} && ${ctr} rm ${NAME} && ${this.collect()}`;
  }
}

/** BuildKit collects at the end of each prune, also of one whose filter nothing matches. */
class BuildKitCommands implements Commands {
  readonly #collect: string;

  constructor(isDockers: boolean) {
    this.#collect = isDockers
      ? `docker builder prune --force --filter id=${NAME}`
      : `buildctl prune --filter id==${NAME}`;
  }

  collect(): string {
    return this.#collect;
  }
  sweepContent(): string {
    return this.#collect;
  }
  sweepSnapshots(): string {
    return this.#collect;
  }
}
