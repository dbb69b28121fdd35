/** Arguments that accept the beginning of a digest, as `why` does. */
import type { CallContext } from '../context.js';
import { isNotFound } from '../errors.js';
import { isDigestPrefix } from '../gc/report/objects.js';
import { isDigest } from '../model/digest.js';
import type { Store } from './store.js';

/**
 * The digest of a blob. Text that is neither a digest nor the beginning of one is passed on; the store
 * refuses it.
 */
export async function blobDigest(db: Store, ctx: CallContext, text: string): Promise<string> {
  if (isDigest(text) || !isDigestPrefix(text)) return text;
  return (await db.find(ctx, { name: text, kind: 'content' })).key;
}

/** The key of a snapshot, which is often a digest. */
export async function snapshotKey(
  db: Store,
  ctx: CallContext,
  snapshotter: string,
  text: string,
): Promise<string> {
  if (isDigest(text) || !isDigestPrefix(text)) return text;
  try {
    const { key } = await db.find(ctx, { name: `${snapshotter}/${text}`, kind: 'snapshot' });
    return key.slice(snapshotter.length + 1);
  } catch (error) {
    // Not the beginning of any digest: a name, which the verb looks up.
    if (isNotFound(error)) return text;
    throw error;
  }
}

/** Resolves all of them before the first is acted on. */
export async function eachOf(
  texts: readonly string[],
  find: (text: string) => Promise<string>,
): Promise<string[]> {
  const found: string[] = [];
  for (const text of texts) found.push(await find(text));
  return found;
}
