/**
 * Opens a store for verbs that change nothing: for writing where possible, because that recovers from an
 * unclean end, else read-only. Called by the runner and `doctor`.
 */
import type { DB } from '../db.js';
import type { OpenOptions } from '../db-options.js';
import { isKind } from '../errors.js';
import { StoreInUse } from '../in-use.js';
import { openDB } from '../open.js';
import { errnoOf } from '../system/system-errors.js';

/**
 * Calls `notice` once with the reason why the store is read-only, unless that was requested. NotFound if
 * there is no store.
 */
export async function openForReading(options: OpenOptions, notice: (why: string) => void): Promise<DB> {
  if (options.readOnly) return openDB(options);
  try {
    return await openDB({ ...options, create: false });
  } catch (error) {
    const why = options.etcd === undefined ? reasonIn(error, options.root) : undefined;
    if (why === undefined) throw error;
    const db = await openDB({ ...options, readOnly: true }).catch((cause: unknown) => {
      // Read-only needs our addon.
      throw isKind(cause, 'NotImplemented') ? error : cause;
    });
    notice(`read-only: ${why}`);
    return db;
  }
}

/** Why a store that cannot be opened for writing may be readable. */
function reasonIn(error: unknown, root: string): string | undefined {
  if (error instanceof StoreInUse) return `${error.holder} has the store open`;
  for (let e = error; e instanceof Error; e = e.cause) {
    const code = errnoOf(e);
    if (code === 'EROFS') return `${root} is on a read-only file system`;
    if (code === 'EFBIG') return 'the limit of file sizes (ulimit -f) is below the size of its files';
    if (code === 'EACCES' || code === 'EPERM') return `this user may not write to ${root}`;
  }
  return undefined;
}
