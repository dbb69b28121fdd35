/**
 * One measurement of one server: runs the Go client (client/*.go) and takes the server's CPU time beside it. The
 * same program and the same arguments for every server.
 */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { buildGo } from '../../test/conformance/go-programs.js';
import type { Server } from '../../test/conformance/servers.js';

export interface Spread {
  count: number;
  p50: number;
  p99: number;
  max: number;
}
export interface Transfer {
  seconds: number;
  bytes: number;
  digest: string;
}
export interface Rate {
  calls: number;
  seconds: number;
  ms: Spread;
}
export interface Lists {
  entries: number;
  ms: number[];
}
export interface Delays {
  idle: Record<string, Spread>;
  during: Record<string, Spread>;
  collections: number[];
  removed: number;
}

export type Arguments = Record<string, string | number | boolean>;

const CLIENT_MS_MAX = 600_000;

export const clientProgram = (): string => buildGo('bench/daemon/client', 'program');

/** Result of a mode of the client, and the CPU seconds that the server spent meanwhile. */
export async function measure<T>(
  server: Server,
  mode: string,
  args: Arguments = {},
): Promise<{ result: T; cpuSeconds: number }> {
  const before = cpuSeconds(server);
  const result = await runClient<T>(mode, { address: server.address, ...args });
  return { result, cpuSeconds: cpuSeconds(server) - before };
}

export async function runClient<T>(mode: string, args: Arguments): Promise<T> {
  const flags = Object.entries(args).map(([name, value]) => `-${name}=${value}`);
  const child = spawn(clientProgram(), [`-mode=${mode}`, ...flags], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: CLIENT_MS_MAX,
    killSignal: 'SIGKILL',
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    stdout += chunk;
  });
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    stderr += chunk;
  });
  const status = await new Promise<string>((resolve, reject) => {
    child.on('error', reject).on('close', (code, signal) => resolve(String(signal ?? code)));
  });
  if (status !== '0') throw new Error(`client ${mode} ${flags.join(' ')} ended with ${status}: ${stderr}`);
  return JSON.parse(stdout) as T;
}

/** The kernel counts in hundredths of a second. */
const TICKS_PER_SECOND = 100;

export function cpuSeconds(server: Server): number {
  const stat = readFileSync(`/proc/${server.pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND;
}
