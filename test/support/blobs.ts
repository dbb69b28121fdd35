/** Blob files and what they belong to; for the tests that cut a process short. */
import { readdir } from 'node:fs/promises';
import type { DB } from '../../src/db.js';
import { key } from '../../src/engine/schema/keys.js';

/** Blobs that an unfinished upload expects: it was begun while another namespace had them, and may end without bytes. */
function expectedBlobs(db: DB): Set<string> {
  const digests = new Set<string>();
  for (const [, ingest] of db.engine.scan(key('ingests'))) {
    if (typeof ingest === 'object' && typeof ingest.expected === 'string') digests.add(ingest.expected);
  }
  return digests;
}

/** Of the files in a directory of SHA-256 blobs, those that neither a namespace has nor an unfinished upload expects. */
export async function orphanBlobs(
  db: DB,
  namespaces: readonly string[],
  directory: string,
): Promise<string[]> {
  const known = expectedBlobs(db);
  for (const namespace of namespaces) {
    await db.content.walk({ namespace }, ({ digest }) => {
      known.add(digest);
    });
  }
  const files = await readdir(directory).catch(() => []);
  return files.map((file) => `sha256:${file}`).filter((digest) => !known.has(digest));
}
