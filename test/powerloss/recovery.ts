/**
 * The process that brings up a store after a power loss: opens it, collects with a full sweep, closes it.
 *
 * Usage: node recovery.js ROOT
 */
import { openDB } from '../../src/open.js';
import { storeIn } from './plan.js';

async function main(root: string): Promise<void> {
  await using db = await openDB({ root: storeIn(root), snapshotters: ['native'], log: () => {} });
  await db.garbageCollect({}, { fullSweep: true });
}

main(process.argv[2] ?? '').catch((error: unknown) => {
  console.error(error);
  process.exit(70);
});
