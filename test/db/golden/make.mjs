// Writes a store with the content that test/db/golden.test.ts expects, by the code of any version of this program:
//
//   node test/db/golden/make.mjs DIST ROOT [closed|killed [ETCD]]
//
// DIST is the compiled output of that version (its `dist`), ROOT a directory that does not exist. `killed` ends the process
// by SIGKILL, after the last write was acknowledged. For a new layout: one of each, packed with
//
//   tar -S --sort=name --owner=0 --group=0 --numeric-owner -c -C ROOT . | xz -9e > test/db/golden/layout-N-closed.tar.xz
//
// With ETCD, the URL of an empty server, the records go there. Once its session has ended (after a kill 10 s), the tree is
// written into the root, in the place of the mirror, and packed as tree-N-….tar.xz:
//
//   node test/db/golden/dump.mjs ETCD ROOT
import { createHash } from 'node:crypto';

const [dist, root, mode, etcd] = process.argv.slice(2);
const db_ = await import(`${dist}/src/db.js`);
const openDB = db_.openDB ?? (await import(`${dist}/src/open.js`)).openDB;
const tree = { hosts: etcd, prefix: 'golden/', hostId: 'golden', backendId: 'golden', sessionTtlSeconds: 10 };
const db = await openDB({ root, snapshotters: ['native'], ...(etcd && { etcd: tree, enableEtcdGC: true }) });
const digest = (b) => `sha256:${createHash('sha256').update(b).digest('hex')}`;
const ctx = { namespace: 'golden' };
const step = async (name, fn) => {
  try {
    await fn();
  } catch (e) {
    console.error(`${name}: ${e.message}`);
    process.exitCode = 1;
  }
};
const blob = async (text, labels = {}) => {
  const data = Buffer.from(text);
  const w = await db.content.writer(ctx, `ref-${text}`, {});
  await w.write(data);
  await w.commit(data.length, digest(data), { labels });
  await w.close?.();
  return { mediaType: 'application/octet-stream', digest: digest(data), size: data.length };
};
const layer = await blob('layer', { 'containerd.io/gc.root': '2020-01-01T00:00:00Z' });
const base = await blob('base');
const manifest = await blob('manifest', {
  'containerd.io/gc.ref.content.0': layer.digest,
  'containerd.io/gc.ref.content.l.1': base.digest,
});
await blob('garbage');
for (let i = 0; i < 20; i++)
  await step('image', () =>
    db.images.create(ctx, { name: `example.com/image:${i}`, labels: { n: String(i) }, target: manifest }),
  );
await step('long', () =>
  db.images.create(ctx, { name: `example.com/${'long/'.repeat(500)}name:1`, labels: {}, target: manifest }),
);
await step('container', () =>
  db.containers.create(ctx, {
    id: 'web',
    image: 'example.com/image:1',
    snapshotter: 'native',
    snapshotKey: 'work',
    labels: { a: 'b' },
    runtime: { name: 'runc' },
    spec: { typeUrl: 'x', value: Buffer.from('{}') },
  }),
);
await step('namespace', () => db.namespaces.setLabel(ctx, 'golden', 'colour', 'blue'));
const sn = db.snapshotter('native');
await step('snapshots', async () => {
  await sn.prepare(ctx, 'first', '', {});
  await sn.commit(ctx, digest('chain'), 'first', { labels: { kind: 'chain' } });
  await sn.prepare(ctx, 'work', digest('chain'), {});
});
await step('lease', async () => {
  await db.leases.create(ctx, { id: 'keep', labels: { owner: 'ci' } }).catch(async () => {
    const l = await import(`${dist}/src/stores/leases.js`);
    return db.leases.create(
      ctx,
      l.withId('keep'),
      l.withLabel?.('owner', 'ci') ?? l.withLabels({ owner: 'ci' }),
    );
  });
  await db.leases.addResource(ctx, { id: 'keep' }, { type: 'content', id: base.digest });
});
await step('ingest', async () => {
  const w = await db.content.writer(ctx, 'half', {});
  await w.write(Buffer.from('half of it'));
  await w.close?.();
});
await step('other ns', () =>
  db.images.create({ namespace: 'other' }, { name: 'elsewhere', labels: {}, target: manifest }),
);
await step('sandbox', () =>
  db.sandboxes.create(ctx, { id: 'pod', runtime: { name: 'r' }, labels: { p: 'q' } }),
);
await step('delete', async () => {
  await db.images.create(ctx, { name: 'gone', labels: {}, target: manifest });
  await db.images.delete(ctx, 'gone');
});
await step('raw', () => db.put('counter', '7'));
if (mode === 'killed') process.kill(process.pid, 'SIGKILL');
await db.close();
