/** The store of docs/operator.md: a small host on a disk that is nearly full, with something of everything. */
import { createCipheriv } from 'node:crypto';
import { mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { DB } from '../../src/db.js';
import { importImage } from '../../src/images/import.js';
import { Interrupted } from '../../src/images/services.js';
import { unpackImage } from '../../src/images/unpack.js';
import { openDB, layout as paths } from '../../src/open.js';
import { withId, withLabel } from '../../src/stores/leases.js';
import type { Item } from '../archive/support.js';
import { Blobs, named, tarOfFiles, writeFiles } from '../images/fixtures.js';

const MiB = 2 ** 20;
const ctx = { namespace: 'default' };
const ci = { namespace: 'ci' };
const SNAPSHOTTER = 'overlayfs';

/** Bytes that do not compress, the same for the same name. */
function bytesOf(name: string, mebibytes: number): Buffer {
  const cipher = createCipheriv('aes-128-ctr', Buffer.alloc(16, name), Buffer.alloc(16));
  return cipher.update(Buffer.alloc(mebibytes * MiB));
}
const layer = (name: string, mebibytes: number): Item[] => [{ name, text: bytesOf(name, mebibytes) }];

export interface OperatorStore {
  /** The leases that the interrupted import and unpacking left. */
  interruptedImport: string;
  interruptedUnpack: string;
  /** The layer that a lease keeps, of an image that is gone. */
  cached: string;
  /** The blob that is shorter than its record says. */
  damaged: string;
}

/** Fills `root`. `dir` is for layouts. */
export async function fillOperatorStore(root: string, dir: string): Promise<OperatorStore> {
  await using db = await openDB({ root, log: () => undefined });
  const base = layer('base', 6);
  const put = async (name: string, layers: Item[][], namespace = ctx): Promise<{ layers: string[] }> => {
    const blobs = new Blobs();
    const image = await blobs.image(layers);
    const path = await writeFiles(
      join(dir, name.replace(':', '-')),
      blobs.layout([named(image.manifest, `registry.example/${name}`)]),
    );
    await importImage(db, namespace, path);
    return { layers: image.layers.map(({ digest }) => digest) };
  };
  const unpack = async (name: string, namespace = ctx): Promise<string> =>
    (
      await unpackImage(
        db,
        namespace,
        await db.images.get(namespace, `registry.example/${name}`),
        SNAPSHOTTER,
      )
    ).chainId;

  const web = await put('web:2', [base, layer('web', 3)]);
  await put('web:1', [base, layer('web-before', 2)]);
  await put('job:9', [base, layer('job', 4)], ci);
  await unpack('web:1');
  await unpack('job:9', ci);
  await container(db, await unpack('web:2'));

  // Gone, but for a lease; gone altogether; without an owner.
  const old = await put('cache:1', [layer('cache', 5)]);
  await db.leases.create(ctx, withId('nightly-cache'), withLabel('owner', 'ci'));
  await db.leases.addResource(ctx, { id: 'nightly-cache' }, { type: 'content', id: old.layers[0]! });
  await put('tools:1', [layer('tools', 3)]);
  for (const name of ['cache:1', 'tools:1']) await db.images.delete(ctx, `registry.example/${name}`);
  const blobs = join(paths.content(root), 'blobs', 'sha256');
  writeFileSync(join(blobs, 'e'.repeat(64)), bytesOf('orphan', 1));

  await put('model:1', [layer('weights', 5), layer('code', 2)]);
  const damaged = web.layers[1]!;
  truncateSync(join(blobs, damaged.slice(7)), MiB);
  return {
    damaged,
    cached: old.layers[0]!,
    interruptedUnpack: await interruptedUnpacking(db, 'registry.example/model:1'),
    interruptedImport: await interruptedImport(db),
  };
}

async function container(db: DB, chainId: string): Promise<void> {
  const lease = { ...ctx, lease: 'start' };
  await db.leases.create(ctx, withId('start'));
  const [mount] = await db.snapshotter(SNAPSHOTTER)!.prepare(lease, 'web', chainId);
  await db.containers.create(ctx, {
    id: 'web',
    image: 'registry.example/web:2',
    runtime: { name: 'io.containerd.runc.v2' },
    spec: { typeUrl: '', value: Buffer.from('{}') },
    snapshotter: SNAPSHOTTER,
    snapshotKey: 'web',
  });
  await db.leases.delete(ctx, { id: 'start' });
  // What the container has written.
  const upper = mount!.options.find((option) => option.startsWith('upperdir='))!.slice('upperdir='.length);
  mkdirSync(join(upper, 'var'));
  writeFileSync(join(upper, 'var', 'log'), bytesOf('log', 2));
}

async function interrupted(
  work: (signal: AbortSignal, stop: () => void) => Promise<unknown>,
): Promise<string> {
  const abort = new AbortController();
  const error = await work(abort.signal, () => abort.abort()).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (error instanceof Interrupted) return error.lease;
  throw new Error('it was not interrupted', { cause: error });
}

/** In the second layer, as by Ctrl-C. */
const interruptedUnpacking = (db: DB, name: string): Promise<string> =>
  interrupted(async (signal, stop) => {
    const names = new Set<string>();
    const image = await db.images.get(ctx, name);
    await unpackImage(db, { ...ctx, signal }, image, SNAPSHOTTER, {
      layersAtOnce: 1,
      progress: (progress) => {
        if (names.add(progress.name).size === 2) stop();
      },
    });
  });

const interruptedImport = (db: DB): Promise<string> =>
  interrupted(async (signal, stop) => {
    const blobs = new Blobs();
    const image = await blobs.image([layer('fetched', 4)], { plain: true });
    const files = [...blobs.layout([named(image.manifest, 'registry.example/next:1')])];
    const large = files.find(([, bytes]) => bytes.length > MiB)!;
    const tar = await tarOfFiles(new Map([large, ...files.filter((file) => file !== large)]));
    const source = async function* (): AsyncGenerator<Uint8Array, void, void> {
      for (let at = 0; at < 2 * MiB; at += 2 ** 16) yield tar.subarray(at, at + 2 ** 16);
      stop();
      yield tar.subarray(2 * MiB);
    };
    await importImage(db, { ...ci, signal }, source());
  });
