/**
 * Backends without bytes, so that what is measured is the store itself; the peer is measured over backends of the
 * same kind. The peer walks its backends in each collection and so must be given the names of everything; a
 * collection here asks only for the removal of what it took the records of, so nothing needs to be kept.
 */
import type { ContentBackend, RemovalReport, SnapshotterBackend } from '../src/backends/contract.js';
import { notFound, notImplemented } from '../src/errors.js';

const nothingHere = (what: string): never => {
  throw notFound(`${what} has no bytes`, { object: what });
};

export class NamesOnlyContent implements ContentBackend {
  async info(digest: string): Promise<never> {
    return nothingHere(digest);
  }
  async readerAt(digest: string): Promise<never> {
    return nothingHere(digest);
  }
  async walk(): Promise<void> {}
  async delete(): Promise<void> {}
  async deleteMany(digests: string[]): Promise<RemovalReport> {
    return { removed: digests.length, bytes: 0, errors: [] };
  }
  async status(ref: string): Promise<never> {
    return nothingHere(ref);
  }
  async listStatuses(): Promise<[]> {
    return [];
  }
  async abort(): Promise<void> {}
  async writer(): Promise<never> {
    throw notImplemented('this backend has no bytes');
  }
}

export class NamesOnlySnapshots implements SnapshotterBackend {
  async stat(key: string): Promise<never> {
    return nothingHere(key);
  }
  async update(): Promise<never> {
    throw notImplemented('this backend has no snapshots');
  }
  async usage(): Promise<{ inodes: number; size: number }> {
    return { inodes: 0, size: 0 };
  }
  async mounts(): Promise<[]> {
    return [];
  }
  async prepare(): Promise<[]> {
    return [];
  }
  async view(): Promise<[]> {
    return [];
  }
  async commit(): Promise<void> {}
  async remove(): Promise<void> {}
  async walk(): Promise<void> {}
  async close(): Promise<void> {}
}
