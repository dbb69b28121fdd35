/**
 * What the root takes on its disk, by what it is for: every entry is in one line, so that the lines add up to what `du`
 * says. Called by retained.ts; reads only, and goes through all directories.
 */
import { statfs } from 'node:fs/promises';
import { dirname } from 'node:path';
import { BLOCK_BYTES, diskUsage } from '../backends/disk-usage.js';
import { throwIfAborted } from '../errors.js';
import { orphanCandidate } from './dry-run.js';
import type { CollectHost } from './host.js';
import { type Survey, surveyContent, surveySnapshotter } from './survey.js';

const diskLines = ['blobs', 'snapshots', 'unfinished', 'trash', 'damaged', 'store'] as const;
export type DiskLine = (typeof diskLines)[number];

/** Bytes. Of `lines`, the sum is `total`. */
export interface DiskReport {
  root: string;
  total: number;
  /** blobs and snapshots with their directories; unfinished ingests; what is being deleted; set aside; own files. */
  lines: Record<DiskLine, number>;
  /** Of blobs and snapshots that no record names: a part of the first two lines. */
  orphans: number;
  fileSystem: { size: number; used: number; free: number };
}

/** undefined where the content is in no directory. */
export async function diskReport(host: CollectHost, signal?: AbortSignal): Promise<DiskReport | undefined> {
  if (host.content.root === undefined) return undefined;
  const root = dirname(host.content.root);
  const lines = { blobs: 0, snapshots: 0, unfinished: 0, trash: 0, damaged: 0, store: 0 };
  const counted = new Set<string>();
  const { size: total } = await diskUsage(root, (path, stats) => {
    throwIfAborted(signal);
    if (stats.nlink > 1 && !stats.isDirectory()) {
      const inode = `${stats.dev}:${stats.ino}`;
      if (counted.has(inode)) return;
      counted.add(inode);
    }
    lines[lineOf(path.toString('latin1').slice(root.length + 1))] += stats.blocks * BLOCK_BYTES;
  });
  const { bsize, blocks, bfree, bavail } = await statfs(root);
  return {
    root,
    total,
    lines,
    orphans: await orphanBytes(host, signal),
    fileSystem: { size: blocks * bsize, used: (blocks - bfree) * bsize, free: bavail * bsize },
  };
}

/** @param path below the root */
function lineOf(path: string): DiskLine {
  const [plugin = '', place = '', name = ''] = path.split('/');
  if (plugin.startsWith('io.containerd.content.')) {
    if (place === 'ingest' || place === '.drafts') return 'unfinished';
    if (place === '.trash') return 'trash';
    return place === '.damaged' ? 'damaged' : 'blobs';
  }
  if (!plugin.startsWith('io.containerd.snapshotter.') || place !== 'snapshots') return 'store';
  return name.startsWith('rm-') ? 'trash' : 'snapshots';
}

async function orphanBytes(host: CollectHost, signal: AbortSignal | undefined): Promise<number> {
  let bytes = 0;
  const visit: Parameters<typeof surveyContent>[1]['visit'] = async (item, size) => {
    // Orphaned ingests are in the line of the unfinished.
    if (item.kind !== 'ingest') bytes += (await orphanCandidate(host, item, size))?.size ?? 0;
  };
  const surveys: (() => Promise<Survey>)[] = [
    () => surveyContent(host, { inFlight: () => host.contentStore.inFlightIngests(), visit, signal }),
    ...[...host.backends].map(
      ([name, backend]) =>
        () =>
          surveySnapshotter(host, name, backend, {
            inFlight: () => host.snapshotterStores.get(name)?.inFlight() ?? new Set(),
            visit,
            signal,
          }),
    ),
  ];
  for (const survey of surveys) await survey();
  return bytes;
}
