/**
 * The manifest of a backup: what is in it, and what the files of its metadata must be. It is written last, so a directory that
 * has one is a whole backup.
 *
 *   <backup>/manifest.json
 *   <backup>/store/          laid out as a root (system/root-layout.ts), without ingests
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { lstat, open } from 'node:fs/promises';
import { join } from 'node:path';
import { readText } from '../backends/files.js';
import { failedPrecondition, invalidArgument, notFound, unknownError } from '../errors.js';
import { errnoOf, fsError, isAbsent } from '../system/system-errors.js';

const FORMAT = 'ebbtide-backup';
const VERSION = 1;

export const MANIFEST = 'manifest.json';
export const storeIn = (backup: string): string => join(backup, 'store');

/** A file of the metadata, by its path below the backup. */
export interface ManifestFile {
  path: string;
  size: number;
  digest: string;
}

/** What a backup could not take, because the store does not have it whole. */
export interface Problem {
  /** What it is. */
  kind: 'blob' | 'snapshot';
  /** The digest, or `<snapshotter>/<backend name>`. */
  object: string;
  /** What is wrong with it. */
  found: string;
}
export const PROBLEMS_KEPT = 1000;

export interface SnapshotCounts {
  snapshots: number;
  /** Of these, those that are being written. */
  active: number;
}

export interface Manifest {
  format: typeof FORMAT;
  version: typeof VERSION;
  /** RFC 3339: the moment that the records are of. */
  takenAt: string;
  revision: number;
  records: number;
  content: { blobs: number; bytes: number };
  snapshotters: Record<string, SnapshotCounts>;
  /** What active snapshots have: what they had when they were copied, or what they had when they were prepared. */
  activeSnapshots: 'copied' | 'fresh';
  metadata: ManifestFile[];
  problems: number;
  /** The first ones. */
  problemList: Problem[];
}

export const newManifest = (rest: Omit<Manifest, 'format' | 'version'>): Manifest => ({
  format: FORMAT,
  version: VERSION,
  ...rest,
});

/** On disk when it resolves. */
export async function writeManifest(backup: string, manifest: Manifest): Promise<void> {
  const path = join(backup, MANIFEST);
  try {
    const handle = await open(path, 'wx', 0o600);
    try {
      await handle.writeFile(`${JSON.stringify(manifest, undefined, 2)}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
  } catch (error) {
    throw fsError('write', path, error);
  }
}

/** NotFound: no backup there. FailedPrecondition: of a later version. Unknown: damaged. */
export async function readManifest(backup: string): Promise<Manifest> {
  const path = join(backup, MANIFEST);
  let text: string;
  try {
    text = await readText(path);
  } catch (error) {
    if (!isAbsent(error) && errnoOf(error) !== 'ENOTDIR') throw fsError('read', path, error);
    throw notFound(`${backup} is not a backup: it has no ${MANIFEST}`, {
      object: backup,
      remedy: 'name the directory that `ebbtide backup` has made',
    });
  }
  const manifest = parse(text);
  if (manifest?.format !== FORMAT) {
    throw unknownError(`${path} is damaged`, { object: path, remedy: 'restore from another backup' });
  }
  if (manifest.version !== VERSION) {
    throw failedPrecondition(
      `the backup ${backup} is of version ${String(manifest.version)}, this program knows ${VERSION}`,
      {
        object: backup,
        remedy: 'restore it with the version that made it, or a newer one',
      },
    );
  }
  for (const file of manifest.metadata) {
    if (!file.path.startsWith('store/') || file.path.split('/').includes('..'))
      throw invalidArgument(`${path} names a file outside the backup: ${file.path}`, { object: path });
  }
  return manifest;
}

function parse(text: string): Manifest | undefined {
  try {
    const value = JSON.parse(text) as Manifest;
    return Array.isArray(value.metadata) && typeof value.snapshotters === 'object' ? value : undefined;
  } catch {
    return undefined;
  }
}

export async function describeFile(backup: string, path: string): Promise<ManifestFile> {
  const whole = join(backup, path);
  try {
    const hash = createHash('sha256');
    for await (const piece of createReadStream(whole)) hash.update(piece as Buffer);
    return { path, size: (await lstat(whole)).size, digest: `sha256:${hash.digest('hex')}` };
  } catch (error) {
    throw fsError('read', whole, error);
  }
}

/** Unknown: a file of the metadata is not what it was. */
export async function checkMetadata(backup: string, { metadata }: Manifest): Promise<void> {
  for (const expected of metadata) {
    const found = await describeFile(backup, expected.path);
    if (found.size === expected.size && found.digest === expected.digest) continue;
    const path = join(backup, expected.path);
    throw unknownError(`${path} is damaged: it has ${found.size} bytes of ${expected.size}, or other ones`, {
      object: path,
      remedy: 'restore from another backup',
    });
  }
}
