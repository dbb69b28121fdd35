/**
 * Compares the store with what is on disk: every blob's record with its file, on request every file with its digest,
 * every snapshot's record with the snapshotter and its directories, what is mounted, what nothing names, and the graph with the
 * records.
 *
 * It runs beside writers and collections. What looks wrong is looked at once more under the guard of its object, so that
 * nothing is reported that is only on its way. Memory: a batch of records, and the snapshots of one snapshotter by name.
 *
 * Repair never deletes: what stands in a blob's place and is not the blob is moved into the content directory's
 * `.damaged`, after which the blob counts as absent and the next import or fetch writes it. Records stay, and with them
 * what refers to them. Leftovers are a collection's work, with its guard against mass removal.
 */
import { throwIfAborted } from '../errors.js';
import { checkBlobs } from './blobs.js';
import { type CheckReport, type Finding, Findings } from './findings.js';
import { checkIngests } from './ingests.js';
import { checkLayers } from './layers.js';
import { checkMounts } from './mounts.js';
import { checkSnapshots } from './snapshots.js';
import type { Check, CheckHost, CheckPhase, Parts, SoundItems } from './under-way.js';

/** What a check looks at. */
export interface CheckOptions {
  /** Reads every blob and compares its digest; default false. */
  hash?: boolean | undefined;
  /** Moves what is not the blob out of its place, and corrects records of the wrong size; default false. */
  repair?: boolean | undefined;
  /** Compares what is in committed snapshots with the archives of their layers, which reads all of these; default false. */
  layers?: boolean | undefined;
  /** Compares the graph with the records, which takes the thread for some seconds a million records; default true. */
  graph?: boolean | undefined;
  /** What an earlier run found sound is not read again, and what this one does is added. */
  sound?: SoundItems | undefined;
  /** Called with every finding; the check waits for it. */
  onFinding?: ((finding: Finding) => Promise<void> | void) | undefined;
  /** Called with how many objects, or bytes where digests are compared, a phase has done. */
  onProgress?: ((phase: CheckPhase, done: number) => void) | undefined;
}

const NOTHING_KNOWN: SoundItems = { has: () => false, add: () => undefined };

/** Rejects with the signal's error, or that of a backend that cannot be read; findings come in the report. */
export async function checkStore(
  host: CheckHost,
  parts: Parts,
  signal: AbortSignal | undefined,
  options: CheckOptions = {},
): Promise<CheckReport> {
  const { hash = false, repair = false, layers = false, graph = true, onFinding, onProgress } = options;
  const findings = new Findings(onFinding);
  const sound = options.sound ?? NOTHING_KNOWN;
  const progress = onProgress ?? (() => undefined);
  const check: Check = { host, parts, findings, hash, repair, signal, sound, progress };
  await checkBlobs(check);
  await checkIngests(check);
  await checkSnapshots(check);
  await checkMounts(check);
  if (layers) await checkLayers(check);
  throwIfAborted(signal);
  if (graph) await checkGraph(check);
  return findings.report;
}

async function checkGraph({ parts, findings, progress }: Check): Promise<void> {
  progress('graph', 0);
  const differences = await parts.verifyGraph();
  findings.report.graph = differences.length === 0 ? 'agrees with the records' : 'differs from the records';
  for (const difference of differences) {
    await findings.add({
      kind: 'graph',
      object: difference,
      remedy: 'run no collection, and restore the database from a copy',
    });
  }
}
