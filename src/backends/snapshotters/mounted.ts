/**
 * Whether a process has a snapshot's directory mounted, in any mount namespace: as the layer of an overlay, or bound. Used before a
 * directory is replaced, since a mount continues to use the old one. Reads what the kernel lists for each process.
 */
import { readdir, readFile, readlink, realpath } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { eachLimit } from '../files.js';
import { unescaped } from '../mount-points.js';

const PROCESSES_AT_ONCE = 16;
/** In mountinfo: the root of the mount in its file system, the mount point, …, the options of the file system. */
const LINE = /^\d+ \d+ \S+ (\S+) (\S+) .* - \S+ \S+ (\S+)$/;

/**
 * A mount point of the directory; undefined: it is not mounted as far as this process may see. `directory`: absolute, as the
 * snapshotter's mounts name it. `now`: where it has been moved to, and exists.
 */
export async function mountPointOf(directory: string, now = directory): Promise<string | undefined> {
  const real = await realpath(now);
  // Mounts of many layers name them from the directory of the snapshots on. Their words are those of the time of mounting.
  const places = [directory, await realpathOf(directory), shortOf(directory)];
  const isLayer = (path: string): boolean => places.includes(path);
  // Of a bind there is the path in its file system, which begins at any of its directories here, as it is now.
  const isBound = (root: string): boolean => root.endsWith(`/${shortOf(now)}`) && real.endsWith(root);
  for (const table of await mountTables()) {
    for (const line of table.split('\n')) {
      const [, root = '', point = '', options = ''] = LINE.exec(line) ?? [];
      if (isBound(unescaped(root)) || layersOf(unescaped(options)).some(isLayer)) return unescaped(point);
    }
  }
  return undefined;
}

function shortOf(directory: string): string {
  const last = basename(directory);
  return last === 'fs' ? join(basename(dirname(directory)), last) : last;
}

/** By the directory of the snapshots, which is there when the snapshot's own is not. */
async function realpathOf(directory: string): Promise<string> {
  const short = shortOf(directory);
  return join(await realpath(directory.slice(0, -short.length - 1)), short);
}

const layersOf = (options: string): string[] =>
  options
    .split(',')
    .flatMap((option) => /^(?:lowerdir|upperdir)\+?=(.*)$/.exec(option)?.[1]?.split(':') ?? []);

/** Of each mount namespace that has a process, once. Processes that end meanwhile, or are another user's, are left out. */
async function mountTables(): Promise<string[]> {
  const pids = (await readdir('/proc')).filter((name) => /^\d+$/.test(name));
  const tables = new Map<string, string>();
  await eachLimit(['self', ...pids], PROCESSES_AT_ONCE, async (pid) => {
    try {
      const namespace = await readlink(`/proc/${pid}/ns/mnt`);
      if (tables.has(namespace)) return;
      tables.set(namespace, '');
      tables.set(namespace, await readFile(`/proc/${pid}/mountinfo`, 'utf8'));
    } catch {
      // It has ended, or is not ours to look at.
    }
  });
  return [...tables.values()];
}
