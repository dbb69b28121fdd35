/**
 * The time that expiries are compared with: the wall clock, but for a grace after it was set forward the time it would
 * show without that. So what expired only because the clock was set is kept for the grace, in which the clock may be
 * corrected and clients may renew. One per DB; used by the collection, its reports and the scheduler.
 *
 * The wall clock is compared with the time since the boot, at each look; however long ago the last look was, the
 * difference shows a step. Time that the host was suspended is time like any other. The state is stored with the records,
 * so a step is noticed over a restart of the process too. Over a boot it cannot be: how long the host was off is not
 * known. What expired while it was off is therefore kept until the host has been up for the grace.
 */
import type { Engine, Key, Transaction } from '../../engine/contract.js';
import { metaKey } from '../../engine/schema/keys.js';
import { invalidArgument, unavailable } from '../../errors.js';
import { type HostClock, hostClock } from '../../model/clock.js';
import { formatTimestamp, type Instant, NANOS_PER_SECOND } from '../../model/time.js';

/** What the scheduler needs of it. */
export interface ExpiryTime {
  /** Expired is what expires before. */
  now(): Instant;
  /** Milliseconds until `expiry` has passed, unless the clock is set meanwhile; 0 when it has. */
  msUntil(expiry: Instant): number;
}

/** Times that the wall clock was seen to have been set by more than a minute. */
export interface ClockSteps {
  /** Times that the clock was set forward. */
  forward: number;
  /** Times that the clock was set back. */
  backward: number;
}

export interface ExpiryClockParts {
  clock?: HostClock | undefined;
  /** Default ten minutes; 0 compares with the wall clock alone. */
  graceMs?: number | undefined;
  /** Where the records are shared by several hosts, whose clock this is. */
  hostId?: string | undefined;
  log: (level: 'warn', message: string, details: Readonly<Record<string, unknown>>) => void;
}

const EXPIRY_GRACE_MS = 600_000;
const NANOS_PER_MILLI = 1_000_000n;
/** A difference up to here is a correction, not a step. */
const STEP = 60n * NANOS_PER_SECOND;
/** Both clocks are read one after the other, and one of them to 10 ms. */
const READING = NANOS_PER_SECOND;
/** Less is not looked at. */
const GLANCE_MS = 1000;
/** A thousandth: twice as fast as a clock that is being adjusted may run. Small steps in a row are not that slow. */
const ADJUSTED_SHARE = 1000n;

/** A forward step in its grace. */
interface HeldBack {
  by: bigint;
  /** Uptime. */
  until: bigint;
}

/** InvalidArgument unless it is a number of milliseconds, 0 or more. */
export function checkGrace(graceMs: number | undefined): void {
  if (graceMs === undefined || (Number.isFinite(graceMs) && graceMs >= 0)) return;
  throw invalidArgument(`expiryGraceMs is ${graceMs}`, { remedy: 'use a number of milliseconds, 0 or more' });
}

export class ExpiryClock implements ExpiryTime {
  readonly steps: ClockSteps = { forward: 0, backward: 0 };
  readonly #clock: HostClock;
  readonly #grace: bigint;
  readonly #log: ExpiryClockParts['log'];
  readonly #key: Key;
  /** Wall clock less uptime, as it would be without what came since faster than an adjustment. */
  #offset: bigint;
  #lookedAt: bigint;
  #drift: number;
  /** The earliest time that the wall clock was set back to since the last run began. */
  #lowest: Instant = 0n;
  #heldBack: HeldBack[] = [];
  /** What the store has is of another boot. */
  #unsaved = true;
  /** Steps noticed, and how many of them the store has. */
  #noticed = 0;
  #saved = 0;
  /** The engine's epoch when it was stored last: if commits were lost since, it may have been among them. */
  #savedIn: number | undefined;

  /** InvalidArgument: see `checkGrace`. */
  constructor({ clock = hostClock, graceMs = EXPIRY_GRACE_MS, hostId, log }: ExpiryClockParts) {
    checkGrace(graceMs);
    this.#clock = clock;
    this.#grace = BigInt(Math.round(graceMs)) * NANOS_PER_MILLI;
    this.#log = log;
    this.#key = hostId === undefined ? metaKey('clock') : metaKey('clock', hostId);
    this.#lookedAt = clock.uptime();
    this.#drift = clock.drift();
    this.#offset = clock.wall() - this.#lookedAt;
  }

  now(): Instant {
    const wall = this.#look();
    return this.#heldBack.reduce((time, { by }) => time - by, wall);
  }

  /** Looks at the clocks if the wall clock was set since the last glance. Before each change, so that none is missed. */
  glance(): void {
    const drift = this.#clock.drift();
    if (Math.abs(drift - this.#drift) >= GLANCE_MS) this.#look();
  }

  /** The moment by which a run judges expiries; one run at a time. */
  beginRun(): Instant {
    const at = this.now();
    this.#lowest = at;
    return at;
  }

  /**
   * Unavailable when the wall clock was set to before `at`, the moment of the run under way: leases may have been made that
   * expire before `at` and live.
   */
  checkRun(at: Instant): void {
    if (this.#clock.wall() >= at && this.#lowest >= at) return;
    throw unavailable('the wall clock was set back during the collection', {
      remedy: 'collect again; the scheduler does',
    });
  }

  msUntil(expiry: Instant): number {
    // Expired means strictly later.
    let left = expiry + NANOS_PER_MILLI - this.now();
    const uptime = this.#lookedAt;
    // Each end of a grace moves the time on by what was held back.
    for (const { by, until } of this.#heldBack) {
      const toEnd = until - uptime;
      if (left <= toEnd) break;
      left = left - by > toEnd ? left - by : toEnd;
    }
    return left <= 0n ? 0 : Number(left / NANOS_PER_MILLI);
  }

  /** What the wall clock shows when `expiry` has passed: later than that while a step is in its grace. */
  wallAt(expiry: Instant): Instant {
    const left = this.msUntil(expiry);
    const wall = this.#clock.wall();
    return left > 0 && expiry < wall ? wall + BigInt(left) * NANOS_PER_MILLI : expiry;
  }

  /** Milliseconds that `now` is behind the wall clock: 0 but for the grace after a step. */
  get heldBackMs(): number {
    this.#look();
    return Number(this.#heldBack.reduce((sum, { by }) => sum + by, 0n) / NANOS_PER_MILLI);
  }

  /** The wall clock, after it was compared with the uptime. */
  #look(): Instant {
    this.#drift = this.#clock.drift();
    const uptime = this.#clock.uptime();
    const wall = this.#clock.wall();
    const offset = wall - uptime;
    const elapsed = uptime - this.#lookedAt;
    this.#lookedAt = uptime;
    this.#heldBack = this.#heldBack.filter(({ until }) => until > uptime);
    const adjusted = this.#offset + (elapsed > 0n ? elapsed / ADJUSTED_SHARE : 0n);
    if (offset < this.#offset - READING) this.#setBack(this.#offset - offset, wall);
    else if (offset - adjusted > STEP) this.#setForward(offset - adjusted, wall);
    else this.#offset = offset < adjusted ? offset : adjusted;
    return wall;
  }

  #setForward(by: bigint, wall: Instant): void {
    this.#offset = wall - this.#lookedAt;
    this.#noticed++;
    this.steps.forward++;
    this.#holdBack(by, this.#lookedAt + this.#grace);
    this.#log('warn', 'the wall clock was set forward: what expired through it is kept for a grace', {
      seconds: secondsOf(by),
      time: formatTimestamp(wall),
      graceSeconds: secondsOf(this.#grace),
    });
  }

  #setBack(by: bigint, wall: Instant): void {
    this.#offset = wall - this.#lookedAt;
    this.#noticed++;
    if (wall < this.#lowest) this.#lowest = wall;
    // It takes back what it was set forward by, the latest first.
    for (let rest = by; rest > 0n; ) {
      const last = this.#heldBack.at(-1);
      if (last === undefined) break;
      const taken = last.by < rest ? last.by : rest;
      last.by -= taken;
      rest -= taken;
      if (last.by === 0n) this.#heldBack.pop();
    }
    if (by <= STEP) return;
    this.steps.backward++;
    this.#log('warn', 'the wall clock was set back', { seconds: secondsOf(by), time: formatTimestamp(wall) });
  }

  #holdBack(by: bigint, until: bigint): void {
    if (until > this.#lookedAt) this.#heldBack.push({ by, until });
  }

  // ---------------------------------------------------------------------------------------------- as it is stored

  /** Goes on from what `save` has stored; called once, before the first look. */
  load(engine: Engine): void {
    const stored = parse(engine.get(this.#key));
    if (stored === undefined) return;
    const { boot } = this.#clock;
    const wall = this.#look();
    if (boot !== '' && boot === stored.boot && stored.lookedAt <= this.#lookedAt) {
      this.#offset = stored.offset;
      this.#lookedAt = stored.lookedAt;
      this.#heldBack = stored.heldBack;
      this.#unsaved = false;
      this.#look();
      return;
    }
    const away = wall - (stored.offset + stored.lookedAt);
    if (away < -STEP) {
      this.steps.backward++;
      this.#log('warn', 'the wall clock is behind what this store has seen', {
        seconds: secondsOf(-away),
        time: formatTimestamp(wall),
      });
    } else if (away > STEP) this.#holdBack(away, this.#grace);
  }

  /** Stores what `load` needs, if that has changed. */
  async save(engine: Engine): Promise<void> {
    this.#look();
    if (!this.#unsaved && !this.#isBehind(engine)) return;
    // Collections go on with a full disk; the next change tries again.
    await engine.update((tx) => this.#put(engine, tx), { durability: 'visible' }).catch(() => undefined);
  }

  /**
   * Stores a step that was noticed with the first change after it, which may be a lease made by the clock as it is now.
   * A process that dies then cannot have one and not the other.
   */
  saveStep(engine: Engine, tx: Transaction): void {
    if (this.#isBehind(engine)) this.#put(engine, tx);
  }

  #isBehind(engine: Engine): boolean {
    return this.#saved < this.#noticed || (this.#savedIn !== undefined && this.#savedIn !== engine.epoch);
  }

  #put(engine: Engine, tx: Transaction): void {
    const text = JSON.stringify({
      boot: this.#clock.boot,
      offset: String(this.#offset),
      lookedAt: String(this.#lookedAt),
      heldBack: this.#heldBack.map(({ by, until }) => [String(by), String(until)]),
    });
    const { epoch } = engine;
    const noticed = this.#noticed;
    tx.put(this.#key, text);
    tx.onCommit(() => {
      this.#savedIn = epoch;
      this.#unsaved = false;
      this.#saved = noticed;
    });
  }
}

const secondsOf = (nanos: bigint): number => Number(nanos / NANOS_PER_MILLI) / 1000;

interface Stored {
  boot: string;
  offset: bigint;
  lookedAt: bigint;
  heldBack: HeldBack[];
}

function parse(value: unknown): Stored | undefined {
  if (typeof value !== 'string') return undefined;
  try {
    const { boot, offset, lookedAt, heldBack } = JSON.parse(value);
    return {
      boot: String(boot),
      offset: BigInt(offset),
      lookedAt: BigInt(lookedAt),
      heldBack: heldBack.map(([by, until]: [string, string]) => ({ by: BigInt(by), until: BigInt(until) })),
    };
  } catch {
    return undefined;
  }
}
