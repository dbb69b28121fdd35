/** A store with something of each kind, everything that can be read of it, and everything that would change it. */
import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { CallContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import { digestOf } from '../../src/model/digest.js';
import { withId } from '../../src/stores/leases.js';

const ctx: CallContext = { namespace: 'test' };
const mediaType = 'application/octet-stream';
const blobs = Array.from({ length: 20 }, (_, i) => Buffer.from(`blob ${i} `.repeat(100)));
const digest = digestOf(blobs[0]!);
const target = { mediaType, digest, size: blobs[0]!.length, annotations: {} };
const runtime = { name: 'io.containerd.runc.v2' };
const SNAPSHOTTERS = ['native', 'overlayfs'];

export async function fill(db: DB): Promise<void> {
  await db.namespaces.create(ctx, 'test', { kind: 'whole' });
  for (const [i, bytes] of blobs.entries()) {
    const writer = await db.content.writer(ctx, `ref-${i}`, { mediaType });
    await writer.write(bytes);
    await writer.commit(bytes.length, digestOf(bytes), {}, ctx);
  }
  const ingest = await db.content.writer(ctx, 'unfinished', { mediaType });
  await ingest.write(Buffer.from('the beginning'));
  await ingest.close();
  await db.images.create(ctx, { name: 'image', target, labels: { a: '1' } });
  for (const name of SNAPSHOTTERS) {
    const snapshotter = db.snapshotter(name)!;
    await snapshotter.prepare(ctx, 'work', '');
    await snapshotter.commit(ctx, 'base', 'work');
    await snapshotter.prepare(ctx, 'top', 'base');
  }
  await db.sandboxes.create(ctx, { id: 'sandbox', runtime, sandboxer: 'podsandbox' });
  await db.containers.create(ctx, {
    id: 'container',
    image: 'image',
    runtime,
    spec: { typeUrl: 'spec', value: Buffer.from('{}') },
    snapshotter: 'native',
    snapshotKey: 'top',
  });
  await db.leases.create(ctx, withId('lease'));
  await db.leases.addResource(ctx, 'lease', { type: 'content', id: digestOf(blobs[1]!) });
  await db.put('/raw/key', 'value');
  // Otherwise at the close: labels of the image and the snapshots that were used.
  await db.host.lastUse.write();
}

/** What every read returns, as text that can be compared. */
export async function everythingRead(db: DB): Promise<string> {
  const content: unknown[] = [];
  await db.content.walk(ctx, (info) => void content.push(info));
  const bytes: Record<string, string> = {};
  for (const blob of blobs) {
    await using reader = await db.content.readerAt(ctx, digestOf(blob));
    const chunks: Buffer[] = [];
    for await (const chunk of reader.stream()) chunks.push(Buffer.from(chunk));
    bytes[digestOf(blob)] = digestOf(Buffer.concat(chunks));
  }
  const snapshots: Record<string, unknown> = {};
  for (const name of SNAPSHOTTERS) {
    const snapshotter = db.snapshotter(name)!;
    const infos: unknown[] = [];
    await snapshotter.walk(ctx, async (info) => {
      infos.push({ ...info, usage: await snapshotter.usage(ctx, info.name) });
    });
    snapshots[name] = { infos, mounts: (await snapshotter.mounts(ctx, 'top')).map(({ type }) => type) };
  }
  const { offset, total } = await db.content.status(ctx, 'unfinished');
  const read = {
    namespaces: await db.namespaces.list(ctx),
    labels: await db.namespaces.labels(ctx, 'test'),
    images: await db.images.list(ctx),
    containers: await db.containers.list(ctx),
    sandboxes: await db.sandboxes.list(ctx),
    leases: await db.leases.list(ctx),
    held: await db.leases.listResources(ctx, 'lease'),
    content,
    bytes,
    ingest: { offset, total, refs: (await db.content.listStatuses(ctx)).map(({ ref }) => ref) },
    snapshots,
    raw: [...(await db.get('/raw/key'))],
    graph: db.engine.verifyGraph(),
    why: (await db.why(ctx, digest)).state,
    usage: (await db.du(ctx)).rows,
    garbage: (await db.garbageCollect({}, { dryRun: true })).wouldRemove?.map(({ key }) => key).sort(),
    plan: (await db.planCollection()).objects.length,
    sound: (await db.check()).sound,
  };
  return JSON.stringify(read, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value), 1);
}

/** By name. */
export function everythingThatChanges(db: DB): Record<string, () => Promise<unknown>> {
  const native = db.snapshotter('native')!;
  const later = { namespace: 'later' };
  return {
    'namespaces.create': () => db.namespaces.create(ctx, 'later'),
    'namespaces.setLabel': () => db.namespaces.setLabel(ctx, 'test', 'a', 'b'),
    'namespaces.delete': () => db.namespaces.delete(ctx, 'test'),
    'images.create': () => db.images.create(ctx, { name: 'other', target }),
    'images.update': () => db.images.update(ctx, { name: 'image', target, labels: {} }, 'labels'),
    'images.delete': () => db.images.delete(ctx, 'image'),
    'containers.create': () =>
      db.containers.create(later, { id: 'c', runtime, spec: { typeUrl: 's', value: Buffer.from('{}') } }),
    'containers.delete': () => db.containers.delete(ctx, 'container'),
    'sandboxes.create': () => db.sandboxes.create(ctx, { id: 's', runtime, sandboxer: 's' }),
    'sandboxes.delete': () => db.sandboxes.delete(ctx, 'sandbox'),
    'leases.create': () => db.leases.create(ctx, withId('other')),
    'leases.delete': () => db.leases.delete(ctx, 'lease'),
    'leases.addResource': () => db.leases.addResource(ctx, 'lease', { type: 'content', id: digest }),
    'leases.deleteResource': () => db.leases.deleteResource(ctx, 'lease', { type: 'content', id: digest }),
    'mounts.activate': () =>
      db.mounts.activate(ctx, 'm', [{ type: 'bind', source: '/', options: ['bind'] }], { temporary: true }),
    'mounts.deactivate': () => db.mounts.deactivate(ctx, 'm'),
    'content.writer': () => db.content.writer(ctx, 'new', {}),
    'content.writer of what is there': () => db.content.writer(ctx, 'new', { digest }),
    'content.writer that resumes': () => db.content.writer(ctx, 'unfinished', {}),
    'content.abort': () => db.content.abort(ctx, 'unfinished'),
    'content.update': () => db.content.update(ctx, { digest, labels: { a: 'b' } }, 'labels'),
    'content.delete': () => db.content.delete(ctx, digest),
    'snapshots.prepare': () => native.prepare(ctx, 'new', 'base'),
    'snapshots.view': () => native.view(ctx, 'new', 'base'),
    'snapshots.commit': () => native.commit(ctx, 'new', 'top'),
    'snapshots.update': () => native.update(ctx, { name: 'base', labels: { a: 'b' } }, 'labels.a'),
    'snapshots.remove': () => native.remove(ctx, 'top'),
    'snapshots.write': () => native.write(ctx, 'top', async () => undefined),
    'snapshots.cleanup': () => native.cleanup(ctx),
    garbageCollect: () => db.garbageCollect(),
    applyPlan: async () => db.applyPlan(await db.planCollection()),
    'check with repair': () => db.check({}, { repair: true }),
    update: () => db.update(() => undefined),
    put: () => db.put('/raw/key', 'other'),
    del: () => db.del('/raw/key'),
    eUpdate: () => db.eUpdate((transactor) => transactor.put('/raw/key', 'other')),
    'backend content.delete': () => db.host.content.delete(digest),
    'backend content.writer': () => db.host.content.writer('new', {}),
    'backend content.abort': () => db.host.content.abort('test/1/unfinished'),
    'backend snapshots.remove': () => db.host.backends.get('native')!.remove('test/1/top'),
    'backend snapshots.prepare': () => db.host.backends.get('native')!.prepare('x', ''),
  };
}

/** Everything below a directory: names, modes, owners, times, bytes. */
export function bytesOf(directory: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of ['', ...readdirSync(directory, { recursive: true }).map(String).sort()]) {
    const path = join(directory, name);
    const { mode, uid, gid, size, mtimeNs, ctimeNs } = lstatSync(path, { bigint: true });
    const isFile = lstatSync(path).isFile();
    const hash = isFile ? createHash('sha256').update(readFileSync(path)).digest('hex') : '';
    found[name] = [mode, uid, gid, size, mtimeNs, ctimeNs, hash].join(' ');
  }
  return found;
}
