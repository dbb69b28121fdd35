/** How long a timer waits: Node takes a longer time for a millisecond. Called by what has its times from settings or clients. */
export const TIMER_MS_MAX = 2 ** 31 - 1;

export const timerMs = (ms: number): number => Math.min(ms, TIMER_MS_MAX);
