/** Small objects and checks shared by the store tests; alterations are made by spreading over them. */
import assert from 'node:assert/strict';
import type { CallContext } from '../../src/context.js';
import type { Transaction } from '../../src/engine/contract.js';
import { blobKey, snapshotKey, snapshotterKey } from '../../src/engine/schema/keys.js';
import { EbbtideError, type ErrorKind } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import type { Any, BlobRecord, SnapshotRecord } from '../../src/model/records.js';
import { now } from '../../src/model/time.js';
import { putRecord } from '../../src/stores/common.js';
import type { ContainerInput } from '../../src/stores/containers.js';
import type { ImageInput } from '../../src/stores/images.js';

export const ns1: CallContext = { namespace: 'ns1' };
export const ns2: CallContext = { namespace: 'ns2' };

export const digest = (seed: string): string => digestOf(Buffer.from(seed));
export const any = (text: string): Any => ({ typeUrl: `test/${text}`, value: Buffer.from(text) });

export const manifest = 'application/vnd.oci.image.manifest.v1+json';
export const target = (seed = 'manifest'): { digest: string; mediaType: string; size: number } => ({
  digest: digest(seed),
  mediaType: manifest,
  size: 7,
});
export const image = (name: string, more: Partial<ImageInput> = {}): ImageInput => ({
  name,
  target: target(),
  ...more,
});
export const container = (id: string, more: Partial<ContainerInput> = {}): ContainerInput => ({
  id,
  runtime: { name: 'runc' },
  spec: any('spec'),
  ...more,
});

/** For `assert.rejects` and `assert.throws`: the error has this kind, and the text in its message. */
export const withKind =
  (kind: ErrorKind, text = '') =>
  (error: unknown): boolean => {
    assert.ok(error instanceof EbbtideError, `no error of this package: ${String(error)}`);
    assert.equal(error.kind, kind, error.message);
    assert.ok(error.message.includes(text), `"${error.message}" does not include "${text}"`);
    return true;
  };

export const rejects = (promise: Promise<unknown>, kind: ErrorKind, text?: string): Promise<void> =>
  assert.rejects(promise, withKind(kind, text));

/** Records of the stores whose objects need a backend, written as those stores write them. */
export function addBlobRecord(tx: Transaction, ns: string, seed: string): void {
  const at = now();
  putRecord<BlobRecord>(tx, blobKey(ns, digest(seed)), { createdat: at, updatedat: at, size: 1 });
}
export function addSnapshotRecord(tx: Transaction, ns: string, snapshotter: string, name: string): void {
  const at = now();
  const record: SnapshotRecord = { createdat: at, updatedat: at, name: `${ns}/1/${name}` };
  tx.put(snapshotterKey(ns, snapshotter), {});
  putRecord<SnapshotRecord>(tx, snapshotKey(ns, snapshotter, name), record);
}
