/** The part of a check that is about blobs: first every record, then every file. Called by check.ts. */
import type { BlobFile } from '../backends/contract.js';
import { DamagedContent, WRITE_AGAIN } from '../backends/damaged.js';
import { eachLimit, yieldToEventLoop } from '../backends/files.js';
import { blobKey, key, leaf, namespaceOf } from '../engine/schema/keys.js';
import { isNotFound, throwIfAborted } from '../errors.js';
import { BlobNames, namespaces, underGuard } from '../gc/sweep/sweep.js';
import { isDigest } from '../model/digest.js';
import type { BlobRecord } from '../model/records.js';
import { putRecord, readRecord } from '../stores/common.js';
import { digestOfBackend } from '../stores/content/content-bytes.js';
import { blobGuard } from '../stores/guards.js';
import type { Finding } from './findings.js';
import { recordsOf } from './records.js';
import type { Check } from './under-way.js';

/** Files looked at, and files read, at a time. */
const LOOKS = 8;
const READS = 2;

export async function checkBlobs(check: Check): Promise<void> {
  await checkRecords(check);
  await checkFiles(check);
}

type Found = Omit<Finding, 'severity'>;

// --------------------------------------------------------------------------------------------------- records

async function checkRecords(check: Check): Promise<void> {
  const { host, findings, signal } = check;
  const { checked } = findings.report;
  for await (const batch of recordsOf(host.engine, key('blobs'))) {
    throwIfAborted(signal);
    await eachLimit(batch, LOOKS, async ([k]) => {
      const [namespace, digest] = [namespaceOf(k), leaf(k)];
      if (!isDigest(digest)) {
        await findings.add(noDigest(namespace, digest));
        return;
      }
      if ((await examine(check, namespace, digest)) === undefined) return;
      // Once more, under its guard: no call writes or removes it.
      await underGuard(host.guards, blobGuard(digest), async () => {
        const found = await examine(check, namespace, digest);
        if (found === undefined) return;
        const repaired = check.repair ? await repair(check, found) : undefined;
        await findings.add({ ...found, repaired });
      });
    });
    checked.blobs += batch.length;
    check.progress('blobs', checked.blobs);
  }
}

const noDigest = (namespace: string, object: string): Found => ({
  kind: 'blob-record',
  namespace,
  object,
  expected: 'a digest',
  remedy: 'delete the record: nothing can read it',
});

/** What is wrong with a blob of a namespace now. */
async function examine(check: Check, namespace: string, digest: string): Promise<Found | undefined> {
  const { host, findings, parts } = check;
  const record = readRecord<BlobRecord>(host.engine, blobKey(namespace, digest));
  if (record === undefined) return undefined;
  const { kind, path, size } = await lookAt(check, digest);
  const about = { object: digest, namespace, path };
  if (!Number.isSafeInteger(record.size) || record.size < 0) {
    return {
      ...about,
      kind: 'blob-record',
      expected: 'a size',
      found: String(record.size),
      remedy: WRITE_AGAIN,
    };
  }
  const expected = `${record.size} bytes`;
  if (kind === 'absent') {
    if (parts.hasAllContent)
      return { ...about, kind: 'blob-missing', expected, found: 'no file', remedy: WRITE_AGAIN };
    findings.report.elsewhere++;
    return undefined;
  }
  if (kind === 'other') {
    return { ...about, kind: 'blob-no-file', expected, found: 'no regular file', remedy: WRITE_AGAIN };
  }
  if (size === record.size) return undefined;
  return { ...about, kind: 'blob-size', expected, found: `${size} bytes`, remedy: WRITE_AGAIN };
}

async function lookAt({ host: { content } }: Check, digest: string): Promise<BlobFile> {
  if (content.inspect !== undefined) return content.inspect(digest);
  try {
    return { path: '', kind: 'file', size: (await content.info(digest)).size };
  } catch (error) {
    if (isNotFound(error)) return { path: '', kind: 'absent', size: 0 };
    throw error;
  }
}

/** REQUIRES: the caller holds the guard of the digest. */
async function repair(
  check: Check,
  { kind, object: digest, namespace = '' }: Found,
): Promise<string | undefined> {
  const { host, signal } = check;
  if (kind === 'blob-missing') return undefined;
  if (kind !== 'blob-no-file' && (await isSound(check, digest))) {
    const { size } = await host.content.info(digest);
    await host.update({ signal }, (tx) => {
      const k = blobKey(namespace, digest);
      const record = readRecord<BlobRecord>(tx, k);
      if (record !== undefined) putRecord<BlobRecord>(tx, k, { ...record, size });
    });
    return `the file has the digest: the record says ${size} bytes now`;
  }
  return setAside(check, digest);
}

async function setAside({ host: { content } }: Check, digest: string): Promise<string | undefined> {
  const path = await content.setAside?.(digest);
  return path && `moved to ${path}`;
}

async function isSound({ host, signal }: Check, digest: string): Promise<boolean> {
  try {
    return (await digestOfBackend(host, digest, signal)) === digest;
  } catch (error) {
    if (isNotFound(error) || error instanceof DamagedContent) return false;
    throw error;
  }
}

// ----------------------------------------------------------------------------------------------------- files

/** Files whose names were not looked up since the last lookup. */
const LOOKS_PER_ANSWER = 256;

/** Every file: whether a record names it and, on request, whether it has its digest. */
async function checkFiles(check: Check): Promise<void> {
  const { host, findings, hash, signal } = check;
  const { checked } = findings.report;
  let names = new BlobNames(host.engine);
  const batch: { digest: string; item: string }[] = [];
  const read = async (): Promise<void> => {
    await eachLimit(batch.splice(0), READS, async ({ digest, item }) => {
      if (await checkDigest(check, digest)) check.sound.add(item);
    });
  };
  await host.content.walk(async ({ digest, size, updatedAt }) => {
    throwIfAborted(signal);
    if (++checked.files % LOOKS_PER_ANSWER === 0) {
      await yieldToEventLoop();
      names = new BlobNames(host.engine);
    }
    if (!names.isNamed(digest)) await checkOrphan(check, digest, size);
    const item = `blob ${digest} ${size} ${updatedAt}`;
    if (hash && check.sound.has(item)) checked.earlier++;
    else if (hash) {
      batch.push({ digest, item });
      checked.hashedBytes += size;
      if (batch.length >= READS) await read();
    }
    check.progress('files', hash ? checked.hashedBytes : checked.files);
  });
  await read();
}

async function checkOrphan(check: Check, digest: string, size: number): Promise<void> {
  const { host, findings } = check;
  await underGuard(host.guards, blobGuard(digest), async () => {
    const { kind, path } = await lookAt(check, digest);
    if (kind === 'absent' || new BlobNames(host.engine).isNamed(digest)) return;
    await findings.add({
      kind: 'blob-orphan',
      object: digest,
      path,
      found: `${size} bytes`,
      remedy: 'a full collection takes it: `ebbtide gc --full`',
    });
  });
}

/** Whether it was found sound. */
async function checkDigest(check: Check, digest: string): Promise<boolean> {
  const { host, findings, signal } = check;
  const actual = async (): Promise<string | undefined> => {
    try {
      return await digestOfBackend(host, digest, signal);
    } catch (error) {
      if (isNotFound(error)) return digest;
      if (error instanceof DamagedContent) return undefined;
      throw error;
    }
  };
  if ((await actual()) === digest) return true;
  await underGuard(host.guards, blobGuard(digest), async () => {
    const found = await actual();
    // One of the wrong size was reported with its record.
    if (found === digest || (await differsFromRecord(check, digest))) return;
    const { path } = await lookAt(check, digest);
    const repaired = check.repair ? await setAside(check, digest) : undefined;
    const finding: Found = {
      kind: 'blob-digest',
      object: digest,
      path,
      expected: digest,
      found,
      remedy: WRITE_AGAIN,
    };
    await findings.add({ ...finding, repaired });
  });
  return false;
}

async function differsFromRecord(check: Check, digest: string): Promise<boolean> {
  const { engine } = check.host;
  const { size } = await lookAt(check, digest);
  return [...namespaces(engine)].some((ns) => {
    const record = readRecord<BlobRecord>(engine, blobKey(ns, digest));
    return record !== undefined && record.size !== size;
  });
}
