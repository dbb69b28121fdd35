/**
 * What the directories beside a damaged `meta.db` say: which blobs there are and how long they are, and what the snapshotters
 * have. Called by the files of salvage/; reads only.
 */
import { readFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { blobName } from '../../backends/content/layout.js';
import type { SnapshotInfo } from '../../backends/contract.js';
import { eachLimit } from '../../backends/files.js';
import { throwIfAborted } from '../../errors.js';
import { MAX_DOCUMENT_BYTES } from '../../images/documents.js';
import { chainIds } from '../../images/unpack.js';
import { digestOf, isDigest } from '../../model/digest.js';
import { messageOf } from '../../system/system-errors.js';
import { ForeignContent } from '../content.js';
import type { Places } from '../places.js';
import { ForeignSnapshotter } from '../snapshots/snapshotters.js';

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
  /** Names of all that have a directory. */
  readonly snapshotters: ReadonlySet<string>;
  readonly notes: readonly string[];
  /** What a document refers to: digests, and the chain id of a config. Nothing for other blobs, and damaged ones. */
  namedIn(digest: string): ReadonlySet<string>;
}

export async function lookAtDisk(places: Places, signal?: AbortSignal): Promise<Disk> {
  const notes: string[] = [];
  const content = await ForeignContent.open(places.content, (_level, message) => notes.push(message)).catch(
    (error: unknown) => {
      notes.push(`no record of a blob is compared with its file: ${messageOf(error)}`);
      return undefined;
    },
  );
  const snapshots = new Map<string, ReadonlyMap<string, SnapshotInfo>>();
  for (const [name, path] of places.snapshotters) {
    if ((await stat(join(path, 'metadata.db')).catch(() => undefined)) === undefined) continue;
    const complain = (what: string): void => void notes.push(`snapshotter ${name}: ${what}`);
    const snapshotter = await ForeignSnapshotter.open(name, path, complain, signal);
    if (!snapshotter.isKnown) continue;
    snapshots.set(name, snapshotter.all);
  }
  const blobs = content && (await blobsIn(places.content, content, signal));
  const namedIn = (digest: string): ReadonlySet<string> => {
    const size = blobs?.get(digest)?.size ?? Number.POSITIVE_INFINITY;
    return size > MAX_DOCUMENT_BYTES ? new Set() : namesInDocument(places.content, digest);
  };
  const snapshotters = new Set(places.snapshotters.keys());
  return { blobs, content, snapshots, snapshotters, notes, namedIn };
}

function namesInDocument(root: string, digest: string): ReadonlySet<string> {
  const names = new Set<string>();
  try {
    const bytes = readFileSync(join(root, blobName(digest)));
    if (digestOf(bytes) !== digest) return names;
    const document = JSON.parse(bytes.toString(), (_key, value: unknown) => {
      if (typeof value === 'string' && isDigest(value)) names.add(value);
      return value;
    }) as { rootfs?: { diff_ids?: string[] } } | null;
    const top = chainIds(document?.rootfs?.diff_ids ?? []).at(-1);
    if (top !== undefined) names.add(top);
  } catch {
    // No document.
  }
  return names;
}

async function blobsIn(
  root: string,
  content: ForeignContent,
  signal: AbortSignal | undefined,
): Promise<Map<string, BlobOnDisk>> {
  const blobs = new Map<string, BlobOnDisk>();
  await eachLimit([...(await content.digests())], LOOKS, async (digest) => {
    throwIfAborted(signal);
    const found = await stat(join(root, blobName(digest)), { bigint: true }).catch(() => undefined);
    if (found?.isFile()) blobs.set(digest, { size: Number(found.size), changedAt: found.mtimeNs });
  });
  return blobs;
}
