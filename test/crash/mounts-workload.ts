/**
 * Child of mounts.test.ts: activates, deactivates and collects mounts, and kills itself at the step that it is told: ROOT SOURCE
 * STEP. Prints what is done, one line each, and the number of steps if it comes to its end.
 */
import fs, { writeSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { sys } from '../../src/backends/sys.js';
import { openDB } from '../../src/open.js';

const [, , root = '', source = '', killAt = ''] = process.argv;
const say = (line: string): void => void writeSync(1, `${line}\n`);

let steps = 0;
let isCounting = false;
function step(): void {
  if (isCounting && ++steps === Number(killAt)) process.kill(process.pid, 'SIGKILL');
}

/** Before and after each call. */
function counted<T extends (...args: never[]) => unknown>(call: T): T {
  return ((...args: never[]) => {
    step();
    const result = call(...args);
    if (result instanceof Promise) return result.finally(step);
    step();
    return result;
  }) as T;
}

const calls = sys as unknown as Record<string, (...args: never[]) => unknown>;
for (const name of ['mount', 'mountWithOptions', 'umount']) calls[name] = counted(calls[name]!);
fs.mkdirSync = counted(fs.mkdirSync);
fs.rmdirSync = counted(fs.rmdirSync);
syncBuiltinESMExports();

const db = await openDB({ root, snapshotters: ['native'], log: () => {} });
const { engine } = db;
engine.update = counted(engine.update.bind(engine)) as typeof engine.update;
const ctx = { namespace: 'ns' };
const mounts = [
  { type: 'bind', source, options: ['rbind'] },
  { type: 'overlay', source: 'overlay', options: [`lowerdir=${source}:${root}`] },
];
await db.leases.create(ctx, { id: 'l' });

isCounting = true;
await db.mounts.activate({ ...ctx, lease: 'l' }, 'kept', mounts, { temporary: true });
say('made kept');
await db.mounts.activate(ctx, 'garbage', mounts, { temporary: true });
say('made garbage');
await db.garbageCollect();
say('collected');
say('ends kept');
await db.mounts.deactivate(ctx, 'kept');
say('ended kept');
isCounting = false;
say(`steps ${steps}`);
await db.close();
