/** A host with leases of its own that waits to be killed (dead-hosts.test.ts): opens, makes what it leaves, says so. */
import type { OpenOptions } from '../../src/db-options.js';
import { openDB } from '../../src/open.js';
import { withId } from '../../src/stores/leases.js';

const ctx = { namespace: 'ns1' };
const db = await openDB({ ...(JSON.parse(process.argv[2]!) as OpenOptions), log: () => undefined });
await db.leases.create(ctx, withId('own'));
const native = db.snapshotter('native')!;
await native.prepare({ ...ctx, lease: 'own' }, 'held', '');
const writer = await db.content.writer({ ...ctx, lease: 'own' }, 'upload');
await writer.write(Buffer.from('half of it'));
await db.leases.create(ctx, withId('short'));
await db.leases.delete(ctx, 'short');
// Raises the flag of its directories.
await native.prepare(ctx, 'loose', '');
await native.remove(ctx, 'loose');
await db.lock('a lock of its own');
process.stdout.write('ready\n');
// The upload stays open.
setInterval(() => writer, 1000);
