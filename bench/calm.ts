/** Waits for the machine to be idle before something is timed, and returns how busy it was. Linux only. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** Per cent of the last ten seconds in which something waited for a CPU; undefined where the kernel does not say. */
export function cpuPressure(): number | undefined {
  try {
    const match = /^some avg10=([\d.]+)/m.exec(readFileSync('/proc/pressure/cpu', 'utf8'));
    return match === null ? undefined : Number(match[1]);
  } catch {
    return undefined;
  }
}

/** Returns at the latest after `limitMs`; resolves with the pressure then. */
export async function waitUntilCalm(limitMs: number, enough = 10): Promise<number | undefined> {
  const end = performance.now() + limitMs;
  for (;;) {
    const pressure = cpuPressure();
    if (pressure === undefined || pressure < enough || performance.now() >= end) return pressure;
    await sleep(500);
  }
}
