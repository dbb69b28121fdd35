/**
 * Reads are of what every host has committed, or they are refused: with etcd stopped, no read of any store returns what this
 * host's mirror still has. The methods are found on the classes; one that is not listed below fails the test.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DB } from '../../src/db.js';
import { EbbtideError } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import { ContainerStore } from '../../src/stores/containers.js';
import { ContentStore } from '../../src/stores/content/content.js';
import { ImageStore } from '../../src/stores/images.js';
import { LeaseManager, withId } from '../../src/stores/leases.js';
import { NamespaceStore } from '../../src/stores/namespaces.js';
import { SandboxStore } from '../../src/stores/sandboxes.js';
import { Snapshotter } from '../../src/stores/snapshots.js';
import { ctx, openHost } from './hosts.js';
import { cluster } from './one-member.js';

/** The etcd of this file alone: it is stopped. */
const bytes = Buffer.from('read me');
const digest = digestOf(bytes);
const target = { mediaType: 'application/octet-stream', digest, size: bytes.length };
const noop = (): void => undefined;

type Class = abstract new (...args: never[]) => object;

/** One class: its reads, each with how to call it, and the names of its other public methods. */
interface Doors {
  class: Class;
  store: object;
  reads: Record<string, () => Promise<unknown>>;
  /** Transactions, which etcd decides. */
  writes: readonly string[];
  /** What has no part in the records. */
  others?: readonly string[];
}

const of = <S extends object>(
  cls: Class & { prototype: S },
  store: S,
  reads: Record<string, (store: S) => Promise<unknown>>,
  writes: readonly string[],
  others: readonly string[] = [],
): Doors => ({
  class: cls,
  store,
  reads: Object.fromEntries(Object.entries(reads).map(([name, read]) => [name, () => read(store)])),
  writes,
  others,
});

/** Commit and writer change something, but have the backend act on what they have read: they are reads first. */
function doorsOf(db: DB): Doors[] {
  return [
    of(
      ImageStore,
      db.images,
      {
        get: (s) => s.get(ctx, 'image'),
        list: (s) => s.list(ctx),
        listed: (s) => s.listed(ctx),
        stored: (s) => s.stored(ctx),
      },
      ['create', 'update', 'delete'],
    ),
    of(
      ContainerStore,
      db.containers,
      { get: (s) => s.get(ctx, 'c'), list: (s) => s.list(ctx), listed: (s) => s.listed(ctx) },
      ['create', 'update', 'delete'],
    ),
    of(
      SandboxStore,
      db.sandboxes,
      { get: (s) => s.get(ctx, 's'), list: (s) => s.list(ctx), listed: (s) => s.listed(ctx) },
      ['create', 'update', 'delete'],
    ),
    of(
      LeaseManager,
      db.leases,
      {
        list: (s) => s.list(ctx),
        listed: (s) => s.listed(ctx),
        listResources: (s) => s.listResources(ctx, 'lease'),
      },
      ['create', 'delete', 'addResource', 'deleteResource'],
    ),
    of(NamespaceStore, db.namespaces, { labels: (s) => s.labels({}, 'ns1'), list: (s) => s.list({}) }, [
      'create',
      'setLabel',
      'setLabels',
      'delete',
    ]),
    of(
      ContentStore,
      db.content,
      {
        info: (s) => s.info(ctx, digest),
        has: (s) => s.has(ctx, digest),
        readerAt: async (s) => (await s.readerAt(ctx, digest)).close(),
        walk: (s) => s.walk(ctx, noop),
        status: (s) => s.status(ctx, 'ingest'),
        listStatuses: (s) => s.listStatuses(ctx),
        writer: async (s) => (await s.writer(ctx, 'other ingest')).close(),
      },
      ['update', 'delete', 'abort'],
      ['inFlightIngests'],
    ),
    of(
      Snapshotter,
      db.snapshotter('native')!,
      {
        stat: (s) => s.stat(ctx, 'active'),
        usage: (s) => s.usage(ctx, 'active'),
        mounts: (s) => s.mounts(ctx, 'active'),
        ownerOf: async (s) => s.ownerOf(ctx, mounts),
        write: (s) => s.write(ctx, 'active', async () => undefined),
        walk: (s) => s.walk(ctx, noop),
        commit: (s) => s.commit(ctx, 'done', 'active'),
      },
      ['update', 'prepare', 'view', 'remove'],
      ['cleanup', 'close', 'inFlight'],
    ),
    of(
      DB,
      db,
      {
        view: (s) => s.view(noop),
        find: async (s) => s.find(ctx, digest),
        why: (s) => s.why(ctx, digest),
        du: (s) => s.du(ctx),
        picture: async (s) => {
          for await (const _ of s.picture(ctx)) noop();
        },
        check: (s) => s.check(ctx),
        planCollection: (s) => s.planCollection(ctx),
        planPolicy: (s) => s.planPolicy({ rules: [{ keepLast: 1 }] }, ctx),
        get: (s) => s.get('raw'),
      },
      ['init', 'update', 'garbageCollect', 'applyPlan', 'put', 'del', 'eUpdate', 'lock', 'rLock', 'tryLock'],
      [
        ...['contentStore', 'snapshotter', 'snapshotters', 'transactor'],
        ...['withTransactionContext', 'registerCollectibleResource', 'registerMutationCallback', 'publisher'],
        // When to look next: a read makes sure of what is current.
        'nextExpiry',
        // Of this process: its past, its marks, its last uses.
        ...['history', 'garbage', 'checkMarks'],
        // NotImplemented where the records are in etcd.
        'backup',
        'close',
      ],
    ),
  ];
}

let mounts: Awaited<ReturnType<Snapshotter['mounts']>> = [];

/** One of each, so that the mirror has a result for every read. */
async function fill(db: DB): Promise<void> {
  const runtime = { name: 'r' };
  await db.leases.create(ctx, withId('lease'));
  const writer = await db.content.writer(ctx, 'blob');
  await writer.write(bytes);
  await writer.commit(bytes.length, digest);
  await (await db.content.writer(ctx, 'ingest')).close();
  await db.images.create(ctx, { name: 'image', target });
  await db.containers.create(ctx, { id: 'c', runtime, spec: { typeUrl: 't', value: new Uint8Array() } });
  await db.sandboxes.create(ctx, { id: 's', runtime });
  mounts = await db.snapshotter('native')!.prepare(ctx, 'active', '');
}

function methodsOf({ prototype }: Class): string[] {
  return Object.entries(Object.getOwnPropertyDescriptors(prototype))
    .filter(([name, { value }]) => name !== 'constructor' && typeof value === 'function')
    .map(([name]) => name);
}

test('given every read of every store, when etcd is stopped, then each is Unavailable and none returns what the mirror has', async (t) => {
  const etcd = cluster.config({ requestTimeoutMs: 4000, operationTimeoutMs: 4000 });
  const db = await openHost(t, { etcd });
  const doors = doorsOf(db);

  for (const store of [...Object.values(db), db.content, db.snapshotter('native')]) {
    assert.ok(
      doors.some(({ class: cls }) => Object.getPrototypeOf(store) === cls.prototype),
      `no class is listed for ${store}`,
    );
  }
  for (const { class: cls, reads, writes, others = [] } of doors) {
    assert.deepEqual(methodsOf(cls).sort(), [...Object.keys(reads), ...writes, ...others].sort(), cls.name);
  }

  await fill(db);
  for (const { class: cls, reads } of doors) {
    for (const [name, read] of Object.entries(reads)) {
      if (name !== 'commit') await assert.doesNotReject(read, `${cls.name}.${name}`);
    }
  }

  const [member] = cluster.members;
  await member!.pause();
  try {
    const returned: string[] = [];
    await Promise.all(
      doors.flatMap(({ class: cls, reads }) =>
        Object.entries(reads).map(([name, read]) =>
          read().then(
            () => returned.push(`${cls.name}.${name}`),
            (error) => {
              assert.ok(error instanceof EbbtideError && error.kind === 'Unavailable', `${name}: ${error}`);
            },
          ),
        ),
      ),
    );
    assert.deepEqual(returned, []);
  } finally {
    member!.signal('SIGCONT');
  }
});
