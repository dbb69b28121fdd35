/**
 * The clocks of a host. The wall clock can be set at any time; the time since boot cannot. Used by
 * gc/schedule/expiry-clock.ts, which compares them. Tests pass their own.
 */
import { readFileSync } from 'node:fs';
import { uptime } from 'node:os';
import { type Instant, now } from './time.js';

export interface HostClock {
  wall(): Instant;
  /** Nanoseconds since the host booted, including time spent suspended. */
  uptime(): bigint;
  /**
   * The wall clock minus a clock that is never set, in milliseconds. Cheap to read; changes when the wall
   * clock is set.
   */
  drift(): number;
  /** Differs from boot to boot; empty on a host that does not report it. */
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
