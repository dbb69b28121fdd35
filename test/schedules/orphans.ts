/** Items of backends that no record names: what a sweep must find, and what must not be there at rest. */
import type { Value } from '../../src/engine/contract.js';
import type { FakeContent, FakeSnapshotter } from '../support/fake-backends.js';
import type { Mirror } from './mirror.js';

export interface Orphan {
  readonly what: 'a blob' | 'an ingest' | 'a snapshot';
  /** Digest, ref, or snapshotter and name as `snapshotItem` joins them. */
  readonly item: string;
}

export const snapshotItem = (snapshotter: string, name: string): string => `${snapshotter}\0${name}`;

export function* orphans(
  mirror: Mirror,
  content: FakeContent,
  snapshotters: ReadonlyMap<string, FakeSnapshotter>,
): Generator<Orphan> {
  const named = namedItems(mirror);
  for (const item of content.blobs.keys()) if (!named.has(item)) yield { what: 'a blob', item };
  for (const item of content.ingests) if (!named.has(item)) yield { what: 'an ingest', item };
  for (const [snapshotter, { items }] of snapshotters) {
    for (const name of items.keys()) {
      const item = snapshotItem(snapshotter, name);
      if (!named.has(item)) yield { what: 'a snapshot', item };
    }
  }
}

function namedItems(mirror: Mirror): Set<string> {
  const named = new Set<string>();
  const field = (value: Value, name: string): string =>
    String((value as Record<string, unknown>)[name] ?? '');
  for (const record of mirror.scan('blobs').keys()) named.add(record.split('\0')[2] ?? '');
  for (const value of mirror.scan('ingests').values())
    named.add(field(value, 'ref')).add(field(value, 'expected'));
  for (const [record, value] of mirror.scan('snapshots'))
    named.add(snapshotItem(record.split('\0')[2] ?? '', field(value, 'name')));
  return named;
}
