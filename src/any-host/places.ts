/**
 * Finds where a host keeps what containerd's metadata refers to: the root of a containerd (also the one that
 * Docker runs), or one of BuildKit's, whose files have other names. Called by store.ts; reads only.
 */
import { readdir, stat } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { exists, orAbsent } from '../backends/files.js';
import { failedPrecondition, notFound } from '../errors.js';
import { fsError } from '../system/system-errors.js';

export interface Places {
  readonly kind: 'containerd' | 'buildkit';
  readonly root: string;
  readonly metadata: string;
  readonly content: string;
  /** Directory by snapshotter; records may use a snapshotter that has none. */
  readonly snapshotters: ReadonlyMap<string, string>;
  /** A BuildKit of Docker's, which has other commands. */
  readonly isDockers: boolean;
  /** BuildKit's records of its cache, and of the steps that they are results of. */
  readonly buildCache: { readonly records: string; readonly steps: string | undefined } | undefined;
}

const SNAPSHOTTER = 'io.containerd.snapshotter.v1.';
const METADATA = join('io.containerd.metadata.v1.bolt', 'meta.db');
/** Below the given directory: containerd's own, Docker's, where Docker's has it, that of k3s and RKE2, of k0s, of MicroK8s. */
const BELOW = ['', 'containerd/daemon', 'daemon', 'agent/containerd', 'containerd', 'var/lib/containerd'];
/** BuildKit's, in the directory of a worker, which is named `<runtime>-<snapshotter>`. */
const BUILDKIT_METADATA = 'containerdmeta.db';
const CACHE_RECORDS = 'metadata_v2.db';
const CACHE_STEPS = 'cache.db';
/** Docker's BuildKit, beside Docker's containerd. */
const DOCKERS_BUILDKIT = 'buildkit';
/** Which of Docker's layers are snapshots of its BuildKit. */
const DOCKERS_LAYERS = 'snapshots.db';

/** NotFound, with the names that were looked for; FailedPrecondition for what is not a directory. */
export async function findPlaces(directory: string): Promise<Places> {
  const root = resolve(directory);
  const found = await orAbsent(stat(root)).catch((error: unknown) => {
    throw fsError('look at', root, error);
  });
  if (found?.isDirectory() === false)
    throw failedPrecondition(`${root} is not a directory`, {
      object: root,
      remedy: `name the root; of a single meta.db, a directory that has it as ${METADATA}`,
    });
  for (const below of BELOW) {
    const containerd = await containerdAt(join(root, below));
    if (containerd === undefined) continue;
    const dockers = join(root, DOCKERS_BUILDKIT);
    const places = [dockers, ...(await directoriesIn(dockers)).map((name) => join(dockers, name))];
    return { ...containerd, buildCache: await buildCacheIn(places) };
  }
  for (const worker of ['', ...(await directoriesIn(root))]) {
    const buildkit = await buildkitAt(join(root, worker));
    if (buildkit !== undefined) return buildkit;
  }
  throw notFound(`there is no metadata of a containerd under ${root}`, {
    object: root,
    remedy: `name a directory that has ${METADATA} (containerd, Docker with its containerd image store) or ${BUILDKIT_METADATA} (BuildKit)`,
  });
}

async function containerdAt(root: string): Promise<Places | undefined> {
  const metadata = join(root, METADATA);
  if (!(await exists(metadata))) return undefined;
  const names = await directoriesIn(root);
  const snapshotters = names
    .filter((name) => name.startsWith(SNAPSHOTTER))
    .map((name) => [name.slice(SNAPSHOTTER.length), join(root, name)] as const);
  return {
    kind: 'containerd',
    root,
    metadata,
    content: join(root, 'io.containerd.content.v1.content'),
    snapshotters: new Map(snapshotters),
    isDockers: false,
    buildCache: undefined,
  };
}

async function buildkitAt(root: string): Promise<Places | undefined> {
  const metadata = join(root, BUILDKIT_METADATA);
  if (!(await exists(metadata))) return undefined;
  // Where Docker keeps the layers itself there is none.
  const [, snapshotter] = /-([^-]+)$/.exec(basename(root)) ?? [];
  return {
    kind: 'buildkit',
    root,
    metadata,
    content: join(root, 'content'),
    snapshotters: new Map(snapshotter === undefined ? [] : [[snapshotter, join(root, 'snapshots')]]),
    isDockers: basename(root) === DOCKERS_BUILDKIT && (await exists(join(root, DOCKERS_LAYERS))),
    buildCache: await buildCacheIn([root]),
  };
}

/** The steps of all workers are in the directory above theirs. */
async function buildCacheIn(directories: readonly string[]): Promise<Places['buildCache']> {
  for (const directory of directories) {
    const records = join(directory, CACHE_RECORDS);
    if (!(await exists(records))) continue;
    for (const path of [join(directory, CACHE_STEPS), join(dirname(directory), CACHE_STEPS)])
      if (await exists(path)) return { records, steps: path };
    return { records, steps: undefined };
  }
  return undefined;
}

async function directoriesIn(path: string): Promise<string[]> {
  try {
    const entries = (await orAbsent(readdir(path, { withFileTypes: true }))) ?? [];
    return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  } catch (error) {
    throw fsError('list', path, error);
  }
}
