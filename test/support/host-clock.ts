/** The clocks of a host in a test's hands: the wall clock is set, time passes, the host is booted. */
import type { HostClock } from '../../src/model/clock.js';
import type { Instant } from '../../src/model/time.js';

export const MINUTE = 60_000_000_000n;
export const HOUR = 60n * MINUTE;

export class FakeHostClock implements HostClock {
  boot = 'first';
  #uptime = 30n * HOUR;
  /** The true time when the host booted, and how far the wall clock is from the truth. */
  #bootedAt = 1_700_000_000_000_000_000n;
  #wrongBy = 0n;

  wall(): Instant {
    return this.#bootedAt + this.#uptime + this.#wrongBy;
  }
  uptime(): bigint {
    return this.#uptime;
  }

  drift(): number {
    return Number(this.#bootedAt + this.#wrongBy) / 1e6;
  }

  /** Sets the wall clock on, or back. */
  set(by: bigint): void {
    this.#wrongBy += by;
  }
  pass(time: bigint): void {
    this.#uptime += time;
  }
  /** Off for a time, then up for another. */
  reboot(off: bigint, up: bigint): void {
    this.#bootedAt += this.#uptime + off;
    this.#uptime = up;
    this.boot += '+';
  }
}
