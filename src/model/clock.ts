/**
 * The clocks of a host. The wall clock can be set at any time; the time since the boot cannot. Used by
 * gc/schedule/expiry-clock.ts, which compares them; tests give their own.
 */
import { readFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { type Instant, now } from './time.js';

export interface HostClock {
  wall(): Instant;
  /** Nanoseconds since the host booted, those it was suspended for included. */
  uptime(): bigint;
  /** The wall clock less another one that nobody sets, in milliseconds: costs little, and changes when the clock is set. */
  drift(): number;
  /** Differs from boot to boot; empty where the host does not say. */
  readonly boot: string;
}

const NANOS_PER_MILLI = 1_000_000n;

/** `os.uptime` reads CLOCK_BOOTTIME (10 ms); `performance.now` and timers stop while the host is suspended. */
export const hostClock: HostClock = {
  wall: now,
  uptime: () => BigInt(Math.round(uptime() * 1000)) * NANOS_PER_MILLI,
  drift: () => Date.now() - performance.now(),
  get boot() {
    try {
      return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    } catch {
      return '';
    }
  },
};
