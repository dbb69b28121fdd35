/** Fetches and pushes images between a store of the test's own and its registry. For the tests here. */
import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { DB } from '../../src/db.js';
import { type FetchOptions, fetchImage } from '../../src/images/fetch.js';
import { pushImage } from '../../src/images/push.js';
import { underLease } from '../../src/images/services.js';
import { RegistryClient, type RegistryOptions } from '../../src/registry/client.js';
import type { Item } from '../archive/support.js';
import { Blobs, ctx, digests, leavesNothing, type MadeImage } from '../images/fixtures.js';
import { testDB } from '../support/db.js';
import { FakeRegistry } from './registry.js';

export const here = { os: 'linux', architecture: 'amd64' };

/** As long as a test can wait. */
export const quick = { pauseMs: 1, idleMs: 200, pauseMsMax: 5 };

/** Does not compress. */
export const text = (bytes: number, seed = 1): string =>
  Array.from({ length: bytes / 8 }, (_, i) =>
    ((i * seed * 2_654_435_761) % 99_999_999).toString().padStart(8),
  ).join('');

export const layer = (bytes: number, seed = 1): Item[] => [{ name: `file${seed}`, text: text(bytes, seed) }];

export interface Stage {
  db: DB;
  blobs: Blobs;
  image: MadeImage;
  registry: FakeRegistry;
}

/** A store, and a registry with an image of two layers as `app:1`. */
export async function stage(t: TestContext, bytes = 300_000): Promise<Stage> {
  const blobs = new Blobs();
  const image = await blobs.image([layer(bytes), layer(1000, 7)], { plain: true });
  const registry = await FakeRegistry.start(t, blobs, { 1: image.manifest });
  return { db: await testDB(t), blobs, image, registry };
}

const silent: FetchOptions['observer'] = {
  found: () => undefined,
  existed: () => undefined,
  progress: () => undefined,
  done: () => undefined,
};

const options = { userAgent: 'test', defaultScheme: 'http' } as const;

/** Fetches `app:1`, or another reference. */
export async function fetched(
  { db, registry }: Pick<Stage, 'db' | 'registry'>,
  more: Partial<RegistryOptions> & Partial<FetchOptions> & { reference?: string } = {},
): Promise<string> {
  const { reference = 'app:1', limits = quick, signal } = more;
  const text = reference.includes('.') ? reference : `${registry.host}/${reference}`;
  await using client = await RegistryClient.open(text, { ...options, ...more, limits });
  return underLease(db, { ...ctx, ...(signal && { signal }) }, 'transfer', async (leased) => {
    const target = await client.resolve();
    const from = { host: '127.0.0.1', repository: 'app', blob: client.blob.bind(client) };
    const {
      platforms = [],
      allMetadata = false,
      manifestLimit = 0,
      observer = silent,
      blobBytesMax = 2 ** 30,
    } = more;
    await fetchImage(db, leased, from, target, {
      platforms,
      allMetadata,
      manifestLimit,
      atOnce: 3,
      blobBytesMax,
      observer,
    });
    await db.images.create(leased, { name: 'fetched', target: { ...target, annotations: {} } });
    return target.digest;
  });
}

/** Pushes the image `fetched` as `reference`. */
export async function pushed(
  { db, registry }: Pick<Stage, 'db' | 'registry'>,
  reference: string,
  more: Partial<RegistryOptions> = {},
): Promise<void> {
  const { target } = await db.images.get(ctx, 'fetched');
  const text = `${registry.host}/${reference}@${target.digest}`;
  await using client = await RegistryClient.open(text, { ...options, limits: quick, ...more });
  await underLease(db, ctx, 'transfer', (leased) =>
    pushImage(db, leased, { host: '127.0.0.1', put: client.put.bind(client) }, target, {
      ...{ platforms: [], atOnce: 3, observer: silent },
    }),
  );
}

/** No image, no lease, no ingest, and after a collection no blob. */
export async function leftNothing({ db }: Pick<Stage, 'db'>): Promise<void> {
  assert.deepEqual(await db.images.list(ctx), []);
  assert.deepEqual(await db.content.listStatuses(ctx), []);
  await leavesNothing(db);
  assert.deepEqual(await digests(db), []);
}
