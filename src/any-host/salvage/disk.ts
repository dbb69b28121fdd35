/**
 * What the directories beside a damaged `meta.db` say: which blobs there are and how long they are, and what the snapshotters
 * have. Called by the files of salvage/; reads only.
 */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { blobName } from '../../backends/content/layout.js';
import type { SnapshotInfo } from '../../backends/contract.js';
import { eachLimit } from '../../backends/files.js';
import { messageOf } from '../../system/system-errors.js';
import { ForeignContent } from '../content.js';
import type { Places } from '../places.js';
import { ForeignSnapshotter } from '../snapshotters.js';

const LOOKS = 16;

export interface BlobOnDisk {
  readonly size: number;
  readonly changedAt: bigint;
}

export interface Disk {
  /** By digest; undefined without a content directory. */
  readonly blobs: ReadonlyMap<string, BlobOnDisk> | undefined;
  readonly content: ForeignContent | undefined;
  /** By snapshotter, then by the name in the backend; only of those whose metadata can be read. */
  readonly snapshots: ReadonlyMap<string, ReadonlyMap<string, SnapshotInfo>>;
  readonly notes: readonly string[];
}

export async function lookAtDisk(places: Places, signal?: AbortSignal): Promise<Disk> {
  const notes: string[] = [];
  const content = await ForeignContent.open(places.content, (_level, message) => notes.push(message)).catch(
    (error: unknown) => {
      notes.push(`no record of a blob is compared with its file: ${messageOf(error)}`);
      return undefined;
    },
  );
  const snapshots = new Map<string, Map<string, SnapshotInfo>>();
  for (const [name, path] of places.snapshotters) {
    if ((await stat(join(path, 'metadata.db')).catch(() => undefined)) === undefined) continue;
    const complain = (what: string): void => void notes.push(`snapshotter ${name}: ${what}`);
    const snapshotter = await ForeignSnapshotter.open(name, path, complain, signal);
    if (!snapshotter.isKnown) continue;
    const all = new Map<string, SnapshotInfo>();
    await snapshotter.walk((info) => void all.set(info.name, info));
    snapshots.set(name, all);
  }
  return { blobs: content && (await blobsIn(places.content, content)), content, snapshots, notes };
}

async function blobsIn(root: string, content: ForeignContent): Promise<Map<string, BlobOnDisk>> {
  const blobs = new Map<string, BlobOnDisk>();
  await eachLimit([...(await content.digests())], LOOKS, async (digest) => {
    const found = await stat(join(root, blobName(digest)), { bigint: true }).catch(() => undefined);
    if (found?.isFile()) blobs.set(digest, { size: Number(found.size), changedAt: found.mtimeNs });
  });
  return blobs;
}
