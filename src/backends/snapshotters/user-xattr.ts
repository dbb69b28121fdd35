/**
 * Whether overlays have to keep their marks in `user.` attributes: in a user namespace the kernel refuses the
 * `trusted.` ones, which it prefers. Tested once, when the overlay snapshotter is opened.
 */
import { mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { isFull } from '../../system/system-errors.js';
import { sys } from '../sys.js';

/** The whole range of ids mapped to itself: not in a user namespace. */
const INITIAL_MAPPING = /^\s*0\s+0\s+4294967295\s*$/;

/** True in a user namespace whose kernel can mount overlays with `userxattr`; tested in `directory`. */
export const needsUserXattr = async (directory: string): Promise<boolean> =>
  (await isInUserNamespace()) && (await canMountWith('userxattr', directory));

export async function isInUserNamespace(): Promise<boolean> {
  const mapping = await readFile('/proc/self/uid_map', 'utf8').catch(() => undefined);
  return mapping !== undefined && !INITIAL_MAPPING.test(mapping);
}

/** Tests an overlay mount with this option. */
async function canMountWith(option: string, directory: string): Promise<boolean> {
  const path = (name: string): string => join(probe, name);
  let probe = '';
  try {
    probe = await mkdtemp(join(directory, '.overlay-'));
    for (const name of ['lower', 'upper', 'work', 'merged']) await mkdir(path(name));
    const layers = [`lowerdir=${path('lower')}`, `upperdir=${path('upper')}`, `workdir=${path('work')}`];
    sys.mountWithOptions('overlay', 'overlay', path('merged'), [...layers, option]);
    sys.umount(path('merged'));
    return true;
  } catch (error) {
    // No space for the test: recent kernels support it.
    return isFull(error);
  } finally {
    if (probe !== '') await rm(probe, { recursive: true, force: true });
  }
}
