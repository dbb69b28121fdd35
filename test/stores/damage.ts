/** Ways to damage a blob's file, as disks, hands and other programs do. */
import { execFileSync } from 'node:child_process';
import { appendFile, chmod, mkdir, readFile, rm, symlink, truncate, writeFile } from 'node:fs/promises';

export const damages: Readonly<Record<string, (path: string) => Promise<unknown>>> = {
  missing: (path) => rm(path),
  truncated: (path) => truncate(path, 3),
  empty: (path) => truncate(path, 0),
  grown: (path) => appendFile(path, 'more'),
  'grown by a hole': (path) => truncate(path, 1_000_000),
  'a directory': async (path) => {
    await rm(path);
    await mkdir(path);
    await writeFile(`${path}/something`, 'x');
  },
  'a link to the bytes': async (path) => {
    const copy = `${path}.elsewhere`;
    await writeFile(copy, await readFile(path));
    await rm(path);
    await symlink(copy, path);
  },
  'a broken link': async (path) => {
    await rm(path);
    await symlink('nowhere', path);
  },
  'a pipe': async (path) => {
    await rm(path);
    execFileSync('mkfifo', [path]);
  },
};

/** Other bytes of the same length. */
export async function rot(path: string): Promise<void> {
  const bytes = await readFile(path);
  bytes[0] = bytes[0]! ^ 1;
  await chmod(path, 0o600);
  await writeFile(path, bytes);
}
