/**
 * The host's clocks in a schedule, and what the time of expiries may be at most: what expired only through a forward step
 * counts when the step is ten minutes old. Knows when each step happened and shares no code with the store's clock.
 *
 * A step back and on again is none, unless something was made in between that is still there: only that could be taken
 * for expired because of the step.
 */
import type { HostClock } from '../../src/model/clock.js';
import { FakeHostClock, MINUTE } from '../support/host-clock.js';

const GRACE = 10n * MINUTE;

interface Step {
  by: bigint;
  /** Uptime. */
  readonly at: bigint;
}

/** A change of the store, where it began among the steps. */
export interface Change {
  /** It was committed. */
  made: boolean;
  /** It is on disk. */
  durable: boolean;
}

export class TrueTime {
  readonly clock = new FakeHostClock();
  #events: (Readonly<Step> | Change)[] = [];

  /** As the store sees the clocks. `wall` is the time that the whole process has. */
  hostClock(wall: () => bigint): HostClock {
    const { clock } = this;
    return { wall, uptime: () => clock.uptime(), drift: () => clock.drift(), boot: clock.boot };
  }

  set(by: bigint): void {
    this.clock.set(by);
    this.#events.push({ by, at: this.clock.uptime() });
  }

  /** A change begins; it looks at the clocks as they are. */
  change(): Change {
    const change = { made: false, durable: false };
    this.#events.push(change);
    return change;
  }

  /** The process has died, and with it what it knew of changes that are not on disk. */
  died(): void {
    this.#events = this.#events.filter((event) => !('made' in event) || event.durable);
  }

  /** No record is left that a step could be compared with. */
  forget(): void {
    this.#events = [];
  }

  /** Nothing that expires later has expired. */
  get latest(): bigint {
    const since = this.clock.uptime() - GRACE;
    return this.#steps().reduce((time, { by, at }) => (at > since ? time - by : time), this.clock.wall());
  }

  /** Forward steps, as far as no backward one has taken them back, the latest first. */
  #steps(): Step[] {
    const steps: Step[] = [];
    /** How far the clock was set back since something was made, and not on again. */
    let back = 0n;
    for (const event of this.#events) {
      if ('made' in event) {
        if (!event.made) continue;
        take(steps, back);
        back = 0n;
      } else if (event.by < 0n) back -= event.by;
      else {
        const again = event.by < back ? event.by : back;
        back -= again;
        if (event.by > again) steps.push({ by: event.by - again, at: event.at });
      }
    }
    take(steps, back);
    return steps;
  }
}

/** Takes time off the steps, the last first. */
function take(steps: Step[], time: bigint): void {
  let rest = time;
  for (let last = steps.at(-1); rest > 0n && last !== undefined; last = steps.at(-1)) {
    const taken = last.by < rest ? last.by : rest;
    last.by -= taken;
    rest -= taken;
    if (last.by === 0n) steps.pop();
  }
}
