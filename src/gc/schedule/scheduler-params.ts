/**
 * Parameters of the scheduler: defaults, limits, durations as texts. Used by scheduler.ts and by the command line.
 */
import { invalidArgument } from '../../errors.js';
import { parseDuration } from '../../model/time.js';
import type { MassGuard } from '../sweep/mass-guard.js';

/** A duration: milliseconds, or a text like `100ms`, `1s`, `1m30s`. */
export type Duration = number | string;

/** When a scheduler collects. */
export interface SchedulerOptions {
  /** Share of real time that collections may take, 0 … 0.5; 0 does not adapt. Default 0.02. */
  pauseThreshold?: number;
  /** This many deletions plan a run; 0 (default) never by count. */
  deletionThreshold?: number;
  /** This many mutations make the next planned tick collect; 0 never by count. Default 100. */
  mutationThreshold?: number;
  /** Between the condition for a run and the run. Default 0. */
  scheduleDelay?: Duration;
  /** Before the first run; 0 means no first run. Default 100 ms. */
  startupDelay?: Duration;
  /**
   * Collects what becomes garbage within a second, however it comes about; then the thresholds do not count, and nothing is
   * looked at without a change or an expiry. `pauseThreshold` bounds the share of time all the same. Default false.
   */
  immediate?: boolean;
  /** How often marks that live on are compared with a count anew; 0: never. Default 24h. */
  marksCheckInterval?: Duration;
  /** Stops a run that would remove nearly everything; default true, with the default limits. */
  massGuard?: boolean | MassGuard;
  /** Stops a run that would remove many backend items that no record names. Default true: default limits. */
  orphanGuard?: boolean | MassGuard;
}

/** Durations in milliseconds. */
export interface SchedulerParams {
  /** As the option, between 0 and 0.5. */
  readonly pauseThreshold: number;
  /** As the option. */
  readonly deletionThreshold: number;
  /** As the option. */
  readonly mutationThreshold: number;
  /** As the option. */
  readonly scheduleDelay: number;
  /** As the option. */
  readonly startupDelay: number;
  /** As the option. */
  readonly immediate: boolean;
  /** As the option; milliseconds. */
  readonly marksCheckInterval: number;
}

const MAX_PAUSE_THRESHOLD = 0.5;
const NANOS_PER_MILLI = 1e6;

/** Options with defaults, forced into their limits. InvalidArgument for what is not a number or duration. */
export function schedulerParams(options: SchedulerOptions = {}): SchedulerParams {
  const { pauseThreshold = 0.02, deletionThreshold = 0, mutationThreshold = 100 } = options;
  return {
    pauseThreshold: Math.min(MAX_PAUSE_THRESHOLD, Math.max(0, numeric('pauseThreshold', pauseThreshold))),
    deletionThreshold: numeric('deletionThreshold', deletionThreshold),
    mutationThreshold: Math.max(0, numeric('mutationThreshold', mutationThreshold)),
    scheduleDelay: Math.max(0, milliseconds('scheduleDelay', options.scheduleDelay ?? 0)),
    startupDelay: Math.max(0, milliseconds('startupDelay', options.startupDelay ?? 100)),
    immediate: options.immediate === true,
    marksCheckInterval: Math.max(0, milliseconds('marksCheckInterval', options.marksCheckInterval ?? '24h')),
  };
}

function numeric(name: string, value: number): number {
  if (typeof value !== 'number' || Number.isNaN(value)) {
    throw invalidArgument(`scheduler parameter ${name} is not a number`, { object: name });
  }
  return value;
}

function milliseconds(name: string, value: Duration): number {
  if (typeof value === 'number') return numeric(name, value);
  const nanos = parseDuration(value);
  if (nanos === undefined) {
    throw invalidArgument(`scheduler parameter ${name}: "${value}" is not a duration`, {
      object: name,
      remedy: 'write it like 100ms or 1s',
    });
  }
  return Number(nanos) / NANOS_PER_MILLI;
}
