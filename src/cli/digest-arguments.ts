/** Arguments that name something by its digest may be the beginning of one, as for `why`. */
import type { CallContext } from '../context.js';
import { isNotFound } from '../errors.js';
import { isDigestPrefix } from '../gc/report/objects.js';
import { isDigest } from '../model/digest.js';
import type { Store } from './store.js';

/** The digest of a blob. What is neither a digest nor the beginning of one is left to the store to refuse. */
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
    // Not the beginning of any: a name, which the verb asks for.
    if (isNotFound(error)) return text;
    throw error;
  }
}

/** All of them, before anything is done with the first. */
export async function eachOf(
  texts: readonly string[],
  find: (text: string) => Promise<string>,
): Promise<string[]> {
  const found: string[] = [];
  for (const text of texts) found.push(await find(text));
  return found;
}
