/**
 * What to type to remove what is found in another program's root: with ctr, or with BuildKit's own command. Called by orphans.ts.
 */
import { components } from '../engine/schema/keys.js';
import { digestOf } from '../model/digest.js';
import { ctrOf } from './ctr.js';
import type { ForeignRoot } from './open.js';
import { quoted } from './quoted.js';

export interface Commands {
  /** A collection, which covers all namespaces. */
  collect(): string;
  sweepContent(): string;
  sweepSnapshots(snapshotter: string): string;
  /** Of records. Undefined: their owner has no command for one of them. */
  removeContent(namespace: string, digest: string): string | undefined;
  removeSnapshot(namespace: string, snapshotter: string, name: string): string | undefined;
  removeLease(namespace: string, id: string): string | undefined;
}

/** Name of the temporary objects that the commands create. */
const NAME = 'ebbtide-sweep';

export function commandsFor({ places, loaded }: ForeignRoot): Commands {
  if (places.kind === 'buildkit') return new BuildKitCommands(places.isDockers);
  const [first] = [...loaded.engine.scan('namespaces', { limit: 1 })].map(
    ([record]) => components(record)[1],
  );
  return new CtrCommands(ctrOf(places.root), first ?? 'default');
}

/**
 * containerd sweeps a backend only after a removal in it, and collects at once only for `leases rm --sync`.
 */
class CtrCommands implements Commands {
  readonly #ctr: string;
  readonly #anywhere: string;

  /** `anywhere`: a collection covers all namespaces, whichever is named. */
  constructor(ctr: string, anywhere: string) {
    this.#ctr = ctr;
    this.#anywhere = anywhere;
  }

  collect(): string {
    const leases = `${this.#in(this.#anywhere)} leases`;
    return `${leases} create --id ${NAME} && ${leases} rm --sync ${NAME}`;
  }

  sweepContent(): string {
    const content = `${this.#in(this.#anywhere)} content`;
    const digest = digestOf(Buffer.from(`${NAME}\n`));
    return `echo ${NAME} | ${content} ingest ${NAME} && ${content} rm ${digest} && ${this.collect()}`;
  }

  sweepSnapshots(snapshotter: string): string {
    const snapshots = this.#snapshots(this.#anywhere, snapshotter);
    return `${snapshots} prepare ${NAME} && ${snapshots} rm ${NAME} && ${this.collect()}`;
  }

  removeContent(namespace: string, digest: string): string {
    return `${this.#in(namespace)} content rm ${digest}`;
  }

  removeSnapshot(namespace: string, snapshotter: string, name: string): string {
    return `${this.#snapshots(namespace, snapshotter)} rm ${argument(name)}`;
  }

  removeLease(namespace: string, id: string): string {
    return `${this.#in(namespace)} leases rm ${argument(id)}`;
  }

  #in(namespace: string): string {
    return `${this.#ctr} -n ${quoted(namespace)}`;
  }

  #snapshots(namespace: string, snapshotter: string): string {
    return `${this.#in(namespace)} snapshots --snapshotter ${quoted(snapshotter)}`;
  }
}

/** What begins as an option does is not one. */
const argument = (name: string): string => (name.startsWith('-') ? `-- ${quoted(name)}` : quoted(name));

/** BuildKit collects at the end of each prune, also of one whose filter nothing matches. It has no command for its records. */
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
  removeContent(): undefined {}
  removeSnapshot(): undefined {}
  removeLease(): undefined {}
}
