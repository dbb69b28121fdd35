/** What the figures were measured on, in words. */
import { existsSync, readFileSync } from 'node:fs';
import { arch, cpus, release, totalmem } from 'node:os';
import { coreInfo } from '../src/graph/carriers.js';

export interface Machine {
  cpu: string;
  memoryGiB: number;
  kernel: string;
  /** File system and device that the stores lie on. */
  disk: string;
  node: string;
  lmdb: string;
  core: string;
  date: string;
}

export function describeMachine(scratch: string): Machine {
  const all = cpus();
  // Read as a file: the package does not export its package.json.
  const lmdb = readFileSync(new URL('../../node_modules/lmdb/package.json', import.meta.url), 'utf8');
  return {
    cpu: `${all.length} × ${all[0]?.model.trim() ?? 'unknown'}, ${arch()}`,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: `Linux ${release()}`,
    disk: fileSystemOf(scratch),
    node: process.version,
    lmdb: (JSON.parse(lmdb) as { version: string }).version,
    core: coreInfo().core,
    date: new Date().toISOString().slice(0, 10),
  };
}

function fileSystemOf(path: string): string {
  if (!existsSync('/proc/mounts')) return 'unknown';
  let best = { point: '', text: 'unknown' };
  for (const line of readFileSync('/proc/mounts', 'utf8').split('\n')) {
    const [device, point, type] = line.split(' ');
    if (point === undefined || !`${path}/`.startsWith(point === '/' ? '/' : `${point}/`)) continue;
    if (point.length >= best.point.length) best = { point, text: `${type} on ${device}` };
  }
  return best.text;
}
