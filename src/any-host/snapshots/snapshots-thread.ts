/** The thread of snapshots-beside.ts: reads a snapshotter's metadata, and ends. */
import { parentPort, workerData } from 'node:worker_threads';
import { readSnapshotColumns } from './snapshot-table.js';
import type { Answer } from './snapshots-beside.js';

const complaints: string[] = [];
const columns = await readSnapshotColumns(workerData as string, (what) => complaints.push(what));
parentPort?.postMessage({ columns, complaints } satisfies Answer, [columns.times.buffer]);
