/**
 * What a collection must keep, worked out the slow and plain way: from the rules alone, over plain objects, without
 * a word of the code under test. Reads a store's records into a model, walks it node by node, returns what survives.
 */

/** A store's contents, by namespace. */
export type Model = Map<string, NamespaceModel>;
export type Labels = Readonly<Record<string, string>>;

export interface NamespaceModel {
  images: Map<string, { target: string; labels: Labels }>;
  containers: Map<string, { snapshotter: string; snapshotKey: string; labels: Labels }>;
  /** By digest. */
  blobs: Map<string, { labels: Labels }>;
  ingests: Map<string, { expireat: bigint | undefined; expected: string }>;
  /** By `<snapshotter>/<key>`. */
  snapshots: Map<string, { parent: string; labels: Labels }>;
  sandboxes: Map<string, { labels: Labels }>;
  mounts: Map<string, { labels: Labels }>;
  leases: Map<string, { labels: Labels; resources: Resource[] }>;
}

export interface Resource {
  /** content, image, snapshot, ingest, mount. */
  kind: string;
  /** Digest, name, ref, `<snapshotter>/<key>`. */
  key: string;
}

/** What this reads a store through; the engine has these. */
export interface RecordSource {
  scan(prefix: string): Iterable<[string, unknown]>;
  links(from: string, relation: string): Iterable<string>;
}

const emptyNamespace = (): NamespaceModel => ({
  images: new Map(),
  containers: new Map(),
  blobs: new Map(),
  ingests: new Map(),
  snapshots: new Map(),
  sandboxes: new Map(),
  mounts: new Map(),
  leases: new Map(),
});

type Fields = Readonly<Record<string, unknown>>;
const text = (value: unknown): string => (typeof value === 'string' ? value : '');
const labelsIn = (fields: Fields): Labels => (fields.labels ?? {}) as Labels;

/** Reads every record. */
export function readModel(store: RecordSource): Model {
  const model: Model = new Map();
  const each = (
    collection: string,
    add: (ns: NamespaceModel, name: string, f: Fields, key: string) => void,
  ) => {
    for (const [key, value] of store.scan(collection)) {
      const [, ns = '', ...name] = key.split('\0');
      const space = model.get(ns) ?? emptyNamespace();
      model.set(ns, space);
      add(space, name.join('/'), value as Fields, key);
    }
  };
  each('images', (ns, name, f) => {
    ns.images.set(name, { target: text((f.target as Fields | undefined)?.digest), labels: labelsIn(f) });
  });
  each('containers', (ns, name, f) => {
    const [snapshotter, snapshotKey] = [text(f.snapshotter), text(f.snapshotKey)];
    ns.containers.set(name, { snapshotter, snapshotKey, labels: labelsIn(f) });
  });
  each('blobs', (ns, name, f) => ns.blobs.set(name, { labels: labelsIn(f) }));
  each('ingests', (ns, name, f) => {
    const expireat = typeof f.expireat === 'bigint' ? f.expireat : undefined;
    ns.ingests.set(name, { expireat, expected: text(f.expected) });
  });
  each('snapshots', (ns, name, f) => ns.snapshots.set(name, { parent: text(f.parent), labels: labelsIn(f) }));
  each('sandboxes', (ns, name, f) => ns.sandboxes.set(name, { labels: labelsIn(f) }));
  each('mounts', (ns, name, f) => ns.mounts.set(name, { labels: labelsIn(f) }));
  each('leases', (ns, name, f, key) => {
    const kinds: Record<string, string> = {
      blobs: 'content',
      images: 'image',
      snapshots: 'snapshot',
      ingests: 'ingest',
      mounts: 'mount',
    };
    const resources = ['holds', 'holds.flat'].flatMap((relation) =>
      Array.from(store.links(key, relation), (target) => {
        const [collection = '', , ...parts] = target.split('\0');
        return { kind: kinds[collection] ?? '', key: parts.join('/') };
      }),
    );
    ns.leases.set(name, { labels: labelsIn(f), resources });
  });
  return model;
}

/** `kind|ns|key` of every lease, image, ingest, blob, snapshot and mount there is. */
export function collectibles(model: Model): Set<string> {
  const all = new Set<string>();
  for (const [ns, space] of model) {
    for (const name of space.leases.keys()) all.add(`lease|${ns}|${name}`);
    for (const name of space.images.keys()) all.add(`image|${ns}|${name}`);
    for (const name of space.ingests.keys()) all.add(`ingest|${ns}|${name}`);
    for (const name of space.blobs.keys()) all.add(`content|${ns}|${name}`);
    for (const name of space.snapshots.keys()) all.add(`snapshot|${ns}|${name}`);
    for (const name of space.mounts.keys()) all.add(`mount|${ns}|${name}`);
  }
  return all;
}

/** A node while marking; flat and plain are two. */
interface Mark {
  kind: string;
  ns: string;
  key: string;
  flat: boolean;
}

const GC = 'containerd.io/gc.';
/** The only forms the tests write: whole seconds or nanoseconds, UTC. */
const TIME = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z$/;

function instant(value: string | undefined): bigint | undefined {
  const match = TIME.exec(value ?? '');
  if (match === null) return undefined;
  const millis = Date.parse(`${match[1]}Z`);
  if (Number.isNaN(millis)) return undefined;
  return BigInt(millis) * 1_000_000n + BigInt((match[2] ?? '').padEnd(9, '0'));
}

const expired = (labels: Labels, now: bigint): boolean => {
  const at = instant(labels[`${GC}expire`]);
  return at !== undefined && now > at;
};

/** Whether `rest` is nothing, or begins with `.` or `/`. */
const isSuffix = (rest: string): boolean => rest === '' || rest[0] === '.' || rest[0] === '/';

/** The object a `…ref.` or `…bref.` label word and value name. */
function named(
  word: string,
  value: string,
  kinds: readonly string[],
): { kind: string; key: string } | undefined {
  for (const kind of kinds) {
    if (kind !== 'snapshot' && word.startsWith(kind) && isSuffix(word.slice(kind.length)))
      return { kind, key: value };
  }
  if (!word.startsWith('snapshot.')) return undefined;
  const [snapshotter = ''] = word.slice('snapshot.'.length).split('/');
  return { kind: 'snapshot', key: `${snapshotter}/${value}` };
}

class Oracle {
  readonly #model: Model;
  readonly #now: bigint;
  readonly #seen = new Set<string>();
  readonly #stack: Mark[] = [];
  /** Edges declared elsewhere: back references and conditions, by the plain node they start from. */
  readonly #extra = new Map<string, Mark[]>();

  constructor(model: Model, now: bigint) {
    this.#model = model;
    this.#now = now;
  }

  /** Everything reachable, in either variant: also containers, and what is only referred to. */
  reached(): Set<string> {
    for (const [ns, space] of this.#model) this.#declared(ns, space);
    for (const [ns, space] of this.#model) this.#roots(ns, space);
    for (let mark = this.#stack.pop(); mark !== undefined; mark = this.#stack.pop()) this.#expand(mark);
    const reached = new Set<string>();
    for (const name of this.#seen) reached.add(name.replace('flat ', ''));
    return reached;
  }

  #reach(kind: string, ns: string, key: string, flat = false): void {
    const name = `${flat ? 'flat ' : ''}${kind}|${ns}|${key}`;
    if (this.#seen.has(name)) return;
    this.#seen.add(name);
    this.#stack.push({ kind, ns, key, flat });
  }

  #addExtra(from: string, to: Mark): void {
    this.#extra.set(from, [...(this.#extra.get(from) ?? []), to]);
  }

  #declared(ns: string, space: NamespaceModel): void {
    const back = (kind: string, key: string, labels: Labels) => {
      for (const [label, value] of Object.entries(labels)) {
        if (!label.startsWith(`${GC}bref.`)) continue;
        const parent = named(label.slice(`${GC}bref.`.length), value, ['content', 'image', 'container']);
        if (parent) this.#addExtra(`${parent.kind}|${ns}|${parent.key}`, { kind, ns, key, flat: false });
      }
    };
    for (const [key, { labels }] of space.blobs) back('content', key, labels);
    for (const [key, { labels }] of space.snapshots) back('snapshot', key, labels);
    for (const [key, { labels }] of space.mounts) back('mount', key, labels);
    for (const [key, { labels }] of space.images) if (expired(labels, this.#now)) back('image', key, labels);
    for (const [key, { labels }] of space.blobs) this.#conditions(ns, space, `content|${ns}|${key}`, labels);
    for (const [key, { labels }] of space.images) this.#conditions(ns, space, `image|${ns}|${key}`, labels);
  }

  /** Tests write one condition per label: `usedat<seconds s|key` or `>`. */
  #conditions(ns: string, space: NamespaceModel, from: string, labels: Labels): void {
    for (const [label, value] of Object.entries(labels)) {
      const match = /^containerd\.io\/gc\.cond\.snapshot[./]*([^/]*)/.exec(label);
      const test = /^usedat([<>])(\d+)s\|(.*)$/.exec(value);
      if (match === null || test === null) continue;
      const key = `${match[1]}/${test[3]}`;
      const snapshot = space.snapshots.get(key);
      if (snapshot === undefined) continue;
      const limit = BigInt(test[2] ?? '0') * 1_000_000_000n;
      const holds = Object.entries(snapshot.labels).some(([name, time]) => {
        const used = name.startsWith(`${GC}cond.value-usedat`) ? instant(time) : undefined;
        if (used === undefined) return false;
        return test[1] === '<' ? this.#now - used < limit : this.#now - used > limit;
      });
      if (holds) this.#addExtra(from, { kind: 'snapshot', ns, key, flat: false });
    }
  }

  #roots(ns: string, space: NamespaceModel): void {
    for (const [id, { labels, resources }] of space.leases) {
      if (expired(labels, this.#now)) continue;
      this.#reach('lease', ns, id);
      const flat = `${GC}flat` in labels;
      for (const { kind, key } of resources) this.#reach(kind, ns, key, flat && kind !== 'ingest');
    }
    for (const [name, { labels }] of space.images) {
      if (!expired(labels, this.#now)) this.#reach('image', ns, name);
    }
    for (const [ref, { expireat }] of space.ingests) {
      if (expireat !== undefined && this.#now <= expireat) this.#reach('ingest', ns, ref);
    }
    const isRoot = (labels: Labels) => Object.keys(labels).some((label) => label.startsWith(`${GC}root`));
    for (const [key, { labels }] of space.blobs) if (isRoot(labels)) this.#reach('content', ns, key);
    for (const [id] of space.containers) this.#reach('container', ns, id);
    for (const [key, { labels }] of space.snapshots) if (isRoot(labels)) this.#reach('snapshot', ns, key);
    for (const { labels } of space.sandboxes.values()) this.#follow(ns, labels);
  }

  #follow(ns: string, labels: Labels): void {
    for (const [label, value] of Object.entries(labels)) {
      if (!label.startsWith(`${GC}ref.`)) continue;
      const target = named(label.slice(`${GC}ref.`.length), value, ['content', 'image', 'mount']);
      if (target) this.#reach(target.kind, ns, target.key);
    }
  }

  #expand({ kind, ns, key, flat }: Mark): void {
    const space = this.#model.get(ns);
    if (space === undefined) return;
    if (!flat)
      for (const to of this.#extra.get(`${kind}|${ns}|${key}`) ?? []) this.#reach(to.kind, to.ns, to.key);
    if (kind === 'image') {
      const image = space.images.get(key);
      if (image === undefined) return;
      this.#reach('content', ns, image.target, flat);
      if (!flat) this.#follow(ns, image.labels);
    } else if (kind === 'content') {
      if (!flat) this.#follow(ns, space.blobs.get(key)?.labels ?? {});
    } else if (kind === 'snapshot') {
      const snapshot = space.snapshots.get(key);
      if (snapshot === undefined) return;
      const [snapshotter = ''] = key.split('/');
      if (snapshot.parent !== '') this.#reach('snapshot', ns, `${snapshotter}/${snapshot.parent}`, flat);
      if (!flat) this.#follow(ns, snapshot.labels);
    } else if (kind === 'container') {
      const container = space.containers.get(key);
      if (container === undefined) return;
      const { snapshotter, snapshotKey, labels } = container;
      if (snapshotter !== '') this.#reach('snapshot', ns, `${snapshotter}/${snapshotKey}`);
      this.#follow(ns, labels);
    } else if (kind === 'ingest') {
      const expected = space.ingests.get(key)?.expected ?? '';
      if (expected !== '') this.#reach('content', ns, expected);
    }
  }
}

/** `kind|ns|key` of all that is reachable at `now`, whether there is a record of it or not. */
export const reached = (model: Model, now: bigint): Set<string> => new Oracle(model, now).reached();

/** What a collection at `now` keeps of the model's leases, images, ingests, blobs, snapshots and mounts. */
export function survivors(model: Model, now: bigint): Set<string> {
  const kept = reached(model, now);
  return new Set([...collectibles(model)].filter((name) => kept.has(name)));
}
