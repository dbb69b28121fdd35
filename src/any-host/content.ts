/**
 * Another program's content directory: reads only, without the repairs that opening does elsewhere. Called by
 * store.ts.
 */
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { algorithms, blobsName } from '../backends/content/layout.js';
import { openContent } from '../backends/content/store.js';
import type {
  BackendWriter,
  BlobFile,
  BlobReader,
  ContentBackend,
  ContentInfo,
  IngestStatus,
} from '../backends/contract.js';
import { orAbsent } from '../backends/files.js';
import type { BackendLog } from '../backends/log.js';
import { notFound } from '../errors.js';
import { fsError } from '../system/system-errors.js';
import { refusal } from './refusals.js';

type Reads = Awaited<ReturnType<typeof openContent>>;

export class ForeignContent implements ContentBackend {
  readonly root: string;
  readonly #reads: Reads;

  private constructor(root: string, reads: Reads) {
    this.root = root;
    this.#reads = reads;
  }

  /** NotFound without the directory: its disk may not be mounted. */
  static async open(root: string, log: BackendLog): Promise<ForeignContent> {
    const found = await orAbsent(stat(root)).catch((error: unknown) => {
      throw fsError('look at', root, error);
    });
    if (found === null)
      throw notFound(`there is no content directory ${root}`, {
        object: root,
        remedy: 'mount the disk that it is on',
      });
    return new ForeignContent(root, await openContent(root, { readOnly: true, log }));
  }

  /** The digests of all blobs that have a file. */
  async digests(): Promise<Set<string>> {
    const digests = new Set<string>();
    for (const algorithm of algorithms) {
      const place = join(this.root, blobsName(algorithm));
      const entries = await orAbsent(readdir(place, { withFileTypes: true })).catch((error: unknown) => {
        throw fsError('list', place, error);
      });
      for (const entry of entries ?? []) if (entry.isFile()) digests.add(`${algorithm}:${entry.name}`);
    }
    return digests;
  }

  info(digest: string): Promise<ContentInfo> {
    return this.#reads.info(digest);
  }
  readerAt(digest: string): Promise<BlobReader> {
    return this.#reads.readerAt(digest);
  }
  walk(fn: (info: ContentInfo) => Promise<void> | void): Promise<void> {
    return this.#reads.walk(fn);
  }
  status(ref: string): Promise<IngestStatus> {
    return this.#reads.status(ref);
  }
  listStatuses(): Promise<IngestStatus[]> {
    return this.#reads.listStatuses();
  }
  walkStatusRefs(fn: (ref: string) => Promise<void> | void): Promise<void> {
    return this.#reads.walkStatusRefs(fn);
  }
  inspect(digest: string): Promise<BlobFile> {
    return this.#reads.inspect(digest);
  }
  damagedIngests(): Promise<string[]> {
    return this.#reads.damagedIngests();
  }
  close(): Promise<void> {
    return this.#reads.close();
  }

  async delete(digest: string): Promise<void> {
    throw refusal(`removing ${digest}`, this.root);
  }
  async abort(ref: string): Promise<void> {
    throw refusal(`aborting ${ref}`, this.root);
  }
  async writer(ref: string): Promise<BackendWriter> {
    throw refusal(`writing ${ref}`, this.root);
  }
}
