/**
 * The part of a check that is about snapshots: records against the snapshotter, the snapshotter against records, and,
 * where the snapshotter can inspect them, its snapshots against its directories. Called by check.ts.
 */
import type { SnapshotterBackend } from '../backends/contract.js';
import { eachLimit, yieldToEventLoop } from '../backends/files.js';
import { components, key, snapshotKey } from '../engine/schema/keys.js';
import { isKind, isNotFound, throwIfAborted } from '../errors.js';
import { isSnapshotNamed, underGuard } from '../gc/sweep/sweep.js';
import type { SnapshotRecord } from '../model/records.js';
import { readRecord } from '../stores/common.js';
import { snapshotGuard } from '../stores/guards.js';
import { messageOf } from '../system/system-errors.js';
import type { Finding } from './findings.js';
import { recordsOf } from './records.js';
import type { Check } from './under-way.js';

const LOOKS = 8;
const LOOKS_PER_BREATH = 256;
const UNPACK_AGAIN =
  'remove the snapshot and those on it (`ebbtide snapshots rm`), then unpack the image again';

export async function checkSnapshots(check: Check): Promise<void> {
  await checkRecords(check);
  for (const [snapshotter, backend] of check.host.backends) {
    await checkOrphans(check, snapshotter, backend);
    await checkDirectories(check, snapshotter, backend);
  }
}

type Found = Omit<Finding, 'severity'>;

async function checkRecords(check: Check): Promise<void> {
  const { host, findings, signal } = check;
  const { checked } = findings.report;
  for await (const batch of recordsOf(host.engine, key('snapshots'))) {
    throwIfAborted(signal);
    await eachLimit(batch, LOOKS, async ([k]) => {
      const [, namespace = '', snapshotter = '', name = ''] = components(k);
      const backend = host.backends.get(snapshotter);
      if (backend === undefined || backend.isKnown === false) return;
      const look = (): Promise<Found | undefined> =>
        examine(check, backend, { namespace, snapshotter, name });
      if ((await look()) === undefined) return;
      const record = readRecord<SnapshotRecord>(host.engine, k);
      if (record === undefined) return;
      await underGuard(host.guards, snapshotGuard(snapshotter, record.name), async () => {
        const found = await look();
        if (found !== undefined) await findings.add(found);
      });
    });
    checked.snapshots += batch.length;
    check.progress('snapshots', checked.snapshots);
  }
}

interface Name {
  namespace: string;
  snapshotter: string;
  name: string;
}

async function examine(
  { host, findings, parts }: Check,
  backend: SnapshotterBackend,
  { namespace, snapshotter, name }: Name,
): Promise<Found | undefined> {
  const read = (key: string): SnapshotRecord | undefined =>
    readRecord<SnapshotRecord>(host.engine, snapshotKey(namespace, snapshotter, key));
  const record = read(name);
  if (record === undefined) return undefined;
  const about = { object: name, namespace, snapshotter };
  const lost = (found: string): Found => ({ ...about, kind: 'snapshot-parent', found, remedy: UNPACK_AGAIN });
  const stat = await backend.stat(record.name).catch((error: unknown) => {
    if (isNotFound(error)) return undefined;
    if (isKind(error, 'Unknown')) return messageOf(error);
    throw error;
  });
  if (typeof stat === 'string') return lost(stat);
  if (stat === undefined) {
    if (parts.hasAllSnapshots)
      return { ...about, kind: 'snapshot-missing', expected: record.name, remedy: UNPACK_AGAIN };
    findings.report.elsewhere++;
    return undefined;
  }
  const parent = record.parent === undefined ? '' : read(record.parent)?.name;
  if (parent === stat.parent) return undefined;
  const expected = parent ?? `a record of "${record.parent}"`;
  return { ...lost(stat.parent === '' ? 'no parent' : stat.parent), expected };
}

/** Snapshots of the snapshotter that no record names. */
async function checkOrphans(check: Check, snapshotter: string, backend: SnapshotterBackend): Promise<void> {
  const { host, findings, signal } = check;
  const inFlight = (): ReadonlySet<string> =>
    host.snapshotterStores.get(snapshotter)?.inFlight() ?? new Set();
  const isNamed = (name: string): boolean =>
    inFlight().has(name) || isSnapshotNamed(host.engine, snapshotter, name);
  let looks = 0;
  const unnamed: string[] = [];
  const walk = backend.walk(async ({ name }) => {
    if (++looks % LOOKS_PER_BREATH === 0) await yieldToEventLoop();
    throwIfAborted(signal);
    if (!isNamed(name)) unnamed.push(name);
  });
  await walk.catch((error: unknown) => {
    // A lost parent, which `checkDirectories` names, ends a walk.
    if (!isKind(error, 'Unknown')) throw error;
    host.log('warn', 'snapshots after a damaged one were not compared with the records', {
      snapshotter,
      error: messageOf(error),
    });
  });
  for (const name of unnamed) {
    throwIfAborted(signal);
    await underGuard(host.guards, snapshotGuard(snapshotter, name), async () => {
      const isThere = await backend.stat(name).then(
        () => true,
        () => false,
      );
      if (!isThere || isNamed(name)) return;
      const remedy = 'a full collection takes it: `ebbtide gc --full`';
      await findings.add({ kind: 'snapshot-orphan', object: name, snapshotter, remedy });
    });
  }
}

async function checkDirectories(
  { findings, signal }: Check,
  snapshotter: string,
  backend: SnapshotterBackend,
): Promise<void> {
  await backend.inspect?.(async ({ kind, name, path, found }) => {
    throwIfAborted(signal);
    await findings.add(
      kind === 'orphan'
        ? {
            kind: 'directory-orphan',
            object: name,
            snapshotter,
            path,
            remedy: 'a full collection takes it: `ebbtide gc --full`',
          }
        : {
            kind: kind === 'directory' ? 'snapshot-directory' : 'snapshot-parent',
            object: name,
            snapshotter,
            path,
            found,
            remedy: UNPACK_AGAIN,
          },
    );
  });
}
