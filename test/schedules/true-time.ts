/**
 * The host's clocks in a schedule, and what the time of expiries may be at most: what expired only through a forward step
 * counts when the step is ten minutes old. Knows when each step happened and shares no code with the store's clock.
 */
import type { HostClock } from '../../src/model/clock.js';
import { FakeHostClock, MINUTE } from '../support/host-clock.js';

const GRACE = 10n * MINUTE;

interface Step {
  by: bigint;
  readonly at: bigint;
}

export class TrueTime {
  readonly clock = new FakeHostClock();
  /** Forward steps, as far as no backward one has taken them back. */
  #steps: Step[] = [];
  /** Since something last happened: steps that take each other back before anything does are none. */
  #moved = 0n;
  #movedAt = 0n;

  /** As the store sees the clocks. `wall` is the time that the whole process has. */
  hostClock(wall: () => bigint): HostClock {
    const { clock } = this;
    const looked = <T>(read: () => T): T => {
      this.happened();
      return read();
    };
    return {
      wall,
      uptime: () => looked(() => clock.uptime()),
      drift: () => looked(() => clock.drift()),
      boot: clock.boot,
    };
  }

  set(by: bigint): void {
    this.clock.set(by);
    this.#moved += by;
    this.#movedAt = this.clock.uptime();
  }

  /** Something is made, judged or compared by the clocks as they are. */
  happened(): void {
    const by = this.#moved;
    this.#moved = 0n;
    if (by > 0n) this.#steps.push({ by, at: this.#movedAt });
    let rest = by < 0n ? -by : 0n;
    for (let last = this.#steps.at(-1); rest > 0n && last !== undefined; last = this.#steps.at(-1)) {
      const taken = last.by < rest ? last.by : rest;
      last.by -= taken;
      rest -= taken;
      if (last.by === 0n) this.#steps.pop();
    }
  }

  /** Nothing that expires later has expired. */
  get latest(): bigint {
    this.happened();
    const since = this.clock.uptime() - GRACE;
    return this.#steps.reduce((time, { by, at }) => (at > since ? time - by : time), this.clock.wall());
  }

  /** The host is booted: off for a time, and up for another since. */
  reboot(off: bigint, up: bigint): void {
    this.happened();
    this.clock.reboot(off, up);
    this.#steps = [];
  }
}
