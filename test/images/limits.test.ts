/** Images with more of anything than an image has: refused before any of it is looked at. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { EbbtideError } from '../../src/errors.js';
import { MAX_DOCUMENTS, MAX_IMAGES, MAX_LAYERS, MAX_MANIFESTS } from '../../src/images/documents.js';
import { importImage } from '../../src/images/import.js';
import { resolveManifest } from '../../src/images/resolve.js';
import { digestOf } from '../../src/model/digest.js';
import { streamOf } from '../archive/support.js';
import { tempDir, testDB } from '../support/db.js';
import {
  Blobs,
  ctx,
  type Desc,
  named,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER,
  OCI_MANIFEST,
  tarOfFiles,
  writeFiles,
} from './fixtures.js';

const many = <T>(count: number, make: (n: number) => T): T[] =>
  Array.from({ length: count }, (_, n) => make(n));
const desc = (mediaType: string, n: number): Desc => ({
  mediaType,
  digest: digestOf(Buffer.from(`${n}`)),
  size: 1,
});

async function imported(t: TestContext, entries: Desc[], blobs: Blobs): Promise<unknown> {
  const db = await testDB(t);
  const source = join(await tempDir(t), 'layout');
  await writeFiles(source, blobs.layout(entries));
  return importImage(db, ctx, source);
}

const refused = (call: Promise<unknown>, why: RegExp): Promise<void> =>
  assert.rejects(call, (error) => {
    assert.ok(error instanceof EbbtideError && error.kind === 'InvalidArgument', String(error));
    assert.match(error.message, why);
    return true;
  });

test('given an image of 50,000 layers, when it is imported, then InvalidArgument, and no layer is looked for', async (t) => {
  const blobs = new Blobs();
  const layer = blobs.add(OCI_LAYER, Buffer.alloc(1024));
  const config = blobs.add(OCI_CONFIG, { os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [] } });
  const manifest = blobs.add(OCI_MANIFEST, { config, layers: new Array(50_000).fill(layer) });
  await refused(
    imported(t, [named(manifest, 'x:1')], blobs),
    new RegExp(`50000 entries, more than ${MAX_LAYERS}`),
  );
});

test('given an index of too many manifests, or too many names, when it is imported, then InvalidArgument', async (t) => {
  const blobs = new Blobs();
  const manifests = many(MAX_MANIFESTS + 1, (n) => desc(OCI_MANIFEST, n));
  const index = blobs.add(OCI_INDEX, { manifests });
  await refused(imported(t, [named(index, 'x:1')], blobs), new RegExp(`more than ${MAX_MANIFESTS}`));
  const names = many(MAX_IMAGES + 1, (n) => named(desc(OCI_MANIFEST, 1), `x:${n}`));
  await refused(imported(t, names, new Blobs()), new RegExp(`more than ${MAX_IMAGES}`));
});

test('given a docker archive of too many layers, tags or images, when it is imported, then InvalidArgument', async (t) => {
  const db = await testDB(t);
  const images: object[][] = [
    [{ Config: 'c.json', Layers: new Array(MAX_LAYERS + 1).fill('l.tar') }],
    [{ Config: 'c.json', Layers: [], RepoTags: many(MAX_IMAGES + 1, (n) => `x:${n}`) }],
    new Array(MAX_IMAGES + 1).fill({ Config: 'c.json', Layers: [] }),
    many(3, (i) => ({ Config: 'c.json', Layers: [], RepoTags: many(MAX_IMAGES / 2, (n) => `x${i}:${n}`) })),
  ];
  for (const manifest of images) {
    const config = JSON.stringify({ os: 'linux', architecture: 'amd64', rootfs: { diff_ids: [] } });
    const files = new Map([
      ['c.json', Buffer.from(config)],
      ['manifest.json', Buffer.from(JSON.stringify(manifest))],
    ]);
    await refused(importImage(db, ctx, streamOf(await tarOfFiles(files))), /entries, more than/);
  }
});

test('given indexes within indexes, when the manifest of an image is looked for, then documents up to the limit are read and no more', async () => {
  let reads = 0;
  const documents = new Map<string, Buffer>();
  const make = (manifests: Desc[]): Desc => {
    const bytes = Buffer.from(JSON.stringify({ manifests }));
    const digest = digestOf(bytes);
    documents.set(digest, bytes);
    return { mediaType: OCI_INDEX, digest, size: bytes.length };
  };
  const leaves = (from: number): Desc => make(many(MAX_MANIFESTS, (n) => desc(OCI_MANIFEST, from + n)));
  const target = make(many(4, (n) => leaves(n * MAX_MANIFESTS)));
  const content = {
    async info(_ctx: unknown, digest: string) {
      return { digest, size: documents.get(digest)?.length ?? 1, labels: {}, createdAt: 0n, updatedAt: 0n };
    },
    async readerAt(_ctx: unknown, of: string | { digest: string }) {
      reads++;
      const bytes = documents.get(typeof of === 'string' ? of : of.digest);
      if (bytes === undefined) throw new EbbtideError('NotFound', 'no such blob');
      return {
        size: bytes.length,
        read: async (buffer: Uint8Array, position: number) => bytes.copy(buffer, 0, position),
        stream: async function* () {
          yield bytes;
        },
        close: async () => undefined,
        [Symbol.asyncDispose]: async () => undefined,
      };
    },
  };
  await refused(resolveManifest(content as never, ctx, target), new RegExp(`more than ${MAX_DOCUMENTS}`));
  assert.ok(reads <= MAX_DOCUMENTS + 8, `${reads} documents read`);
});
