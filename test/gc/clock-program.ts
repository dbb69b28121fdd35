/**
 * A process whose wall clock is really set, by libfaketime: `clock-program.js ROOT FILE`. FILE says how far the clock is
 * off. Prints what is left of its leases after each collection.
 */
import { writeFileSync } from 'node:fs';
import { openDB } from '../../src/open.js';
import { withExpiration, withId } from '../../src/stores/leases.js';

const [root = '', file = ''] = process.argv.slice(2);
const ctx = { namespace: 'ns' };
const HOUR_MS = 3_600_000;
const logged: string[] = [];
const db = await openDB({ root, engine: 'memory', log: (_level, message) => logged.push(message) });
const set = (offset: string): void => writeFileSync(file, offset);
const collect = async (): Promise<string[]> => {
  await db.garbageCollect();
  return (await db.leases.list(ctx)).map(({ id }) => id);
};

const began = Date.now();
await db.leases.create(ctx, withId('hour'), withExpiration(HOUR_MS));
set('+9h');
const steppedMs = Date.now() - began;
const ahead = await collect();
await db.leases.create(ctx, withId('made ahead'), withExpiration(HOUR_MS));
set('+0');
await db.leases.create(ctx, withId('four hours'), withExpiration(4 * HOUR_MS));
const back = await collect();
const { steps } = db.expiryTime;
await db.close();
console.log(JSON.stringify({ steppedMs, ahead, back, steps, logged }));
