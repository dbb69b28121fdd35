/** The process of a daemon: how long it takes to start, and the memory it has then. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { lower, type Take } from './figures.js';

/** After this it has done what it does after its start. */
const SETTLED_MS = 2000;

/** Starts the server again. */
const starting: Take = async (server) => {
  await server.stop();
  const begun = performance.now();
  await server.start();
  const ms = performance.now() - begun;
  await sleep(SETTLED_MS);
  return [
    [lower('start until it accepts connections', 'ms'), ms],
    [lower('memory when idle (PSS)', 'MiB'), pssKib(server.pid!) / 1024],
  ];
};

export const processGroups: readonly (readonly [string, Take])[] = [['process', starting]];

/** Pages that it shares count by their share. */
function pssKib(pid: number): number {
  const found = /^Pss: +(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8'));
  if (found === null) throw new Error(`no Pss of process ${pid}`);
  return Number(found[1]);
}
