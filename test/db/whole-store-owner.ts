/**
 * A process that has a store open: `whole-store-owner ROOT`. Fills it, prints what it reads of it, and closes it when its standard
 * input ends.
 */
import { once } from 'node:events';
import { openDB } from '../../src/open.js';
import { everythingRead, fill } from './whole-store.js';

const [root] = process.argv.slice(2);
if (root === undefined) throw new Error('which root?');
const db = await openDB({ root, log: () => undefined });
await fill(db);
process.stdout.write(`${Buffer.from(await everythingRead(db)).toString('base64')}\n`);
await once(process.stdin.resume(), 'end');
await db.close();
