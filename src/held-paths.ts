/**
 * Paths through descriptors, and their names for messages. An open directory is reached at
 * `/proc/self/fd/<number>`, whatever its name leads to by now; messages show its name. Called by
 * system/held-directory.ts and by errors.ts.
 */

/** The directory of this process's descriptors. */
export const DESCRIPTORS = '/proc/self/fd/';
const names = new Map<number, string>();

export const descriptorPath = (fd: number): string => DESCRIPTORS + fd;

export function nameDescriptor(fd: number, path: string): void {
  names.set(fd, path);
}

export function forgetDescriptor(fd: number): void {
  names.delete(fd);
}

/** The text with the names of directories instead of paths through descriptors. */
export function shown(text: string): string {
  if (!text.includes(DESCRIPTORS)) return text;
  return text.replace(/\/proc\/self\/fd\/(\d+)/g, (path, fd: string) => names.get(Number(fd)) ?? path);
}
