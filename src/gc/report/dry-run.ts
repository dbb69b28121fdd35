/**
 * The list that a dry run returns: what a collection would remove now, with sizes. Called by collect.ts between
 * the mark and the end of the run; reads only.
 */
import type { ContentBackend, SnapshotterBackend } from '../../backends/contract.js';
import { yieldToEventLoop } from '../../backends/files.js';
import type { Engine, Value } from '../../engine/contract.js';
import { components } from '../../engine/schema/keys.js';
import { isNotFound } from '../../errors.js';
import { isDigest } from '../../model/digest.js';
import type { Candidate } from '../stats.js';
import type { BackendItem } from '../sweep/orphan-candidates.js';
import { kindName, nodeOfKey, ResourceContent, ResourceIngest, ResourceSnapshot } from '../types.js';

export interface DryRunHost {
  readonly engine: Engine;
  readonly backends: ReadonlyMap<string, SnapshotterBackend>;
  readonly content: Pick<ContentBackend, 'status'>;
}

/** Candidates listed between two pauses. */
const BATCH = 512;

export async function listCandidates(host: DryRunHost, ids: Uint32Array): Promise<Candidate[]> {
  const { engine } = host;
  const list: Candidate[] = [];
  for (const [i, id] of ids.entries()) {
    if (i % BATCH === BATCH - 1) await yieldToEventLoop();
    // Referred to again, or replaced by a new record of the same name, while the list was made.
    if (engine.graph.marksOf(id) !== 0) continue;
    const record = engine.keyOf(id);
    const value = record === undefined ? undefined : engine.get(record);
    const node = record === undefined ? undefined : nodeOfKey(record);
    if (value === undefined || node === undefined) continue;
    const { namespace, key } = node;
    const identity = identityOf(value);
    list.push({ kind: kindName(node.type), namespace, key, size: await sizeOf(host, id), identity });
  }
  return list;
}

/** An orphan as reports show it; undefined when its backend does not have it (any more). */
export async function orphanCandidate(
  { content, backends }: Omit<DryRunHost, 'content'> & { readonly content: ContentBackend },
  item: BackendItem,
  size: number | undefined,
): Promise<Candidate | undefined> {
  const described = (kind: string, key: string, bytes: number): Candidate => ({
    kind,
    namespace: '',
    key,
    size: bytes,
    identity: '',
    orphan: true,
  });
  try {
    switch (item.kind) {
      case 'blob':
        return described('content', item.digest, size ?? (await content.info(item.digest)).size);
      case 'ingest':
        return described('ingest', item.ref, (await content.status(item.ref)).offset);
      case 'snapshot': {
        const usage = await backends.get(item.snapshotter)?.usage(item.name);
        return usage && described('snapshot', `${item.snapshotter}/${item.name}`, usage.size);
      }
    }
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

/** The backend item of an orphan's candidate; undefined when it is of no known form. */
export function itemOfOrphan({ kind, key: name }: Candidate): BackendItem | undefined {
  if (kind === 'content') return isDigest(name) ? { kind: 'blob', digest: name } : undefined;
  if (kind === 'ingest') return name === '' ? undefined : { kind: 'ingest', ref: name };
  const slash = name.indexOf('/');
  if (kind !== 'snapshot' || slash <= 0 || slash === name.length - 1) return undefined;
  return { kind: 'snapshot', snapshotter: name.slice(0, slash), name: name.slice(slash + 1) };
}

/** Fields that `identityOf` asks for. */
export const IDENTITY: ReadonlySet<string> = new Set(['createdat', 'expireat', 'name', 'ref']);

/** Distinguishes a record from a later one under the same key; label updates do not change it. */
export function identityOf(value: Value): string {
  if (typeof value === 'string') return '';
  const { createdat, expireat, name, ref } = value;
  let identity = typeof createdat === 'bigint' ? String(createdat) : '';
  if (typeof expireat === 'bigint') identity = joined(identity, String(expireat));
  if (typeof name === 'string') identity = joined(identity, name);
  return typeof ref === 'string' ? joined(identity, ref) : identity;
}

const joined = (before: string, part: string): string => (before === '' ? part : `${before} ${part}`);

/** Bytes of an ingest, by the backend's ref; 0 when the backend does not know it. */
export const ingestBytes = (content: Pick<ContentBackend, 'status'>, ref: string): Promise<number> =>
  content.status(ref).then(
    ({ offset }) => offset,
    () => 0,
  );

/** Bytes a node's object takes in its backend; 0 when the backend does not know it. */
export async function sizeOf({ engine, backends, content }: DryRunHost, id: number): Promise<number> {
  const type = engine.graph.flagsOf(id) >> 8;
  if (type !== ResourceContent && type !== ResourceSnapshot && type !== ResourceIngest) return 0;
  const record = engine.keyOf(id);
  const value = record === undefined ? undefined : engine.get(record);
  if (record === undefined || typeof value !== 'object') return 0;
  if (type === ResourceContent) return typeof value.size === 'number' ? value.size : 0;
  if (type === ResourceIngest) return typeof value.ref === 'string' ? ingestBytes(content, value.ref) : 0;
  const backend = backends.get(components(record)[2] ?? '');
  if (backend === undefined || typeof value.name !== 'string') return 0;
  try {
    return (await backend.usage(value.name)).size;
  } catch {
    return 0;
  }
}
