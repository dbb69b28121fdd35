/**
 * Damaged layers of another program's snapshots, unpacked again from their archives into a directory of the user's, and what to type
 * to put them in place: the owner has to be stopped for that. Nothing in the root is changed. Called by the verb.
 */
import { mkdir } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { applyLayer } from '../backends/archive/apply.js';
import { compareLayer } from '../backends/archive/compare.js';
import type { Mount } from '../backends/contract.js';
import { copyTree } from '../backends/copy-tree.js';
import { isThere } from '../bolt/writer.js';
import { directoryOf, type UnpackedLayer, unpackedLayers } from '../check/layers.js';
import { EbbtideError, present, throwIfAborted } from '../errors.js';
import { fsError } from '../system/system-errors.js';
import { outsideOf } from './compact.js';
import type { ForeignRoot } from './open.js';
import { quoted } from './quoted.js';

export interface HealedLayer {
  namespace: string;
  snapshotter: string;
  /** Chain id. */
  key: string;
  /** The damaged directory. */
  path: string;
  /** The new one, beside others of this run. */
  healed?: string;
  command?: string;
  /** Why there is none. */
  error?: string;
}

/** AlreadyExists: there is something at `output`, which is made when there is damage. */
export async function healLayers(
  root: ForeignRoot,
  output: string,
  { signal, progress }: { signal?: AbortSignal; progress?: (done: number) => void } = {},
): Promise<HealedLayer[]> {
  const target = await outsideOf(root.places, output);
  const host = { engine: root.loaded.engine, content: root.content, backends: root.snapshotters };
  const healed: HealedLayer[] = [];
  const healing: Healing = { root, output: target, signal, made: new Map() };
  let done = 0;
  // An image's layers come from the lowest up.
  for (const layer of await unpackedLayers(host, signal)) {
    throwIfAborted(signal);
    if (await isDamaged(root, layer, layer.directory, signal)) {
      if (healed.length === 0) await makeDirectory(target);
      healed.push(await heal(healing, layer));
    }
    progress?.(++done);
  }
  return healed;
}

async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { mode: 0o700 });
  } catch (error) {
    const failed = fsError('make', path, error);
    if (failed.kind !== 'AlreadyExists') throw failed;
    throw isThere(path);
  }
}

/** False also for what has no archive to compare it with. */
async function isDamaged(
  { content }: ForeignRoot,
  { digest, diffId }: UnpackedLayer,
  directory: string,
  signal: AbortSignal | undefined,
): Promise<boolean> {
  try {
    await using reader = await content.readerAt(digest);
    return (await compareLayer(directory, reader.stream(), diffId, { signal })).differences.length > 0;
  } catch (error) {
    throwIfAborted(signal);
    if (error instanceof EbbtideError && ['NotFound', 'InvalidArgument', 'Unknown'].includes(error.kind))
      return false;
    throw error;
  }
}

interface Healing {
  readonly root: ForeignRoot;
  readonly output: string;
  readonly signal: AbortSignal | undefined;
  /** The new directory by the damaged one. */
  readonly made: Map<string, string>;
}

async function heal(healing: Healing, layer: UnpackedLayer): Promise<HealedLayer> {
  const { namespace, snapshotter, chainId: key, directory: path, digest, diffId } = layer;
  const about = { namespace, snapshotter, key, path };
  const { root, signal } = healing;
  const place = snapshotter === 'native' ? await copied(healing, layer) : await overlaid(healing, layer);
  if (place === undefined) return { ...about, error: 'what is below it is not there' };
  await using reader = await root.content.readerAt(digest);
  const applied = await applyLayer(place.mounts, reader.stream(), { signal });
  if (applied.digest !== diffId) return { ...about, error: `the archive ${digest} is another layer` };
  const { owners, devices, xattrs } = applied.skipped;
  if (owners + devices + xattrs > 0)
    return { ...about, error: `${owners + devices + xattrs} entries need root to be made as they were` };
  const { healed } = place;
  healing.made.set(path, healed);
  const command = `mv ${quoted(path)} ${quoted(`${path}.damaged`)} && cp -a ${quoted(healed)} ${quoted(path)}`;
  return { ...about, healed, command };
}

interface Place {
  readonly healed: string;
  readonly mounts: Mount[];
}

async function overlaid({ root, output }: Healing, layer: UnpackedLayer): Promise<Place> {
  const number = basename(dirname(layer.directory));
  const healed = join(output, `${layer.snapshotter}-${number}`, 'fs');
  const work = join(output, `${layer.snapshotter}-${number}`, 'work');
  for (const made of [healed, work]) await mkdir(made, { recursive: true, mode: 0o755 });
  return { healed, mounts: await mountsOver(root, layer, healed, work) };
}

/** A directory of the native snapshotter has copies of all layers below, which are taken from the one below, healed if need be. */
async function copied(
  { root, output, signal, made }: Healing,
  { snapshotter, name, directory }: UnpackedLayer,
): Promise<Place | undefined> {
  const backend = present(root.snapshotters.get(snapshotter), `snapshotter ${snapshotter}`);
  const healed = join(output, `${snapshotter}-${basename(directory)}`);
  const { parent } = await backend.stat(name);
  const below = parent === '' ? undefined : await directoryOf(snapshotter, backend, parent);
  if (below !== undefined) await copyTree(made.get(below) ?? below, healed, { log: () => undefined, signal });
  else if (parent === '') await mkdir(healed, { mode: 0o755 });
  else return undefined;
  return { healed, mounts: [bindOf(healed)] };
}

const bindOf = (source: string): Mount => ({ type: 'bind', source, options: ['rbind', 'rw'] });

/** As the snapshotter mounts it, so that deletions and replaced directories are marked as in the old one. */
async function mountsOver(
  { snapshotters }: ForeignRoot,
  { snapshotter, name }: UnpackedLayer,
  upper: string,
  work: string,
): Promise<Mount[]> {
  const backend = present(snapshotters.get(snapshotter), `snapshotter ${snapshotter}`);
  const lowers: string[] = [];
  for (let { parent } = await backend.stat(name); parent !== ''; { parent } = await backend.stat(parent)) {
    const directory = await directoryOf(snapshotter, backend, parent);
    if (directory !== undefined) lowers.push(directory);
  }
  if (lowers.length === 0) return [bindOf(upper)];
  const escaped = (path: string): string => path.replaceAll(':', '\\:');
  const options = [`lowerdir=${lowers.map(escaped).join(':')}`, `upperdir=${upper}`, `workdir=${work}`];
  return [{ type: 'overlay', source: 'overlay', options }];
}
