/** Processor time of what is measured, and how long it holds the thread: figures that a busy machine does not change much. */
import { readFileSync } from 'node:fs';

export interface Taken {
  ms: number;
  /** Of the process: all its threads, user and system. */
  cpuMs: number;
}

export async function taken<T>(work: () => Promise<T>): Promise<{ result: T } & Taken> {
  const cpu = process.cpuUsage();
  const start = performance.now();
  const result = await work();
  const ms = performance.now() - start;
  const { user, system } = process.cpuUsage(cpu);
  return { result, ms, cpuMs: (user + system) / 1000 };
}

export interface Watched {
  /** The longest time between two turns of the event loop in which the thread had a processor, ms. */
  longestMs: number;
  /** Of 1,000 such times one was longer, ms. */
  p999Ms: number;
  turns: number;
}

/** Looks at each turn of the event loop while something runs, which makes it slower. */
export async function watched<T>(work: () => Promise<T>): Promise<{ result: T } & Watched> {
  const times: number[] = [];
  let isOver = false;
  let last = onProcessorMs();
  const look = (): void => {
    times.push(onProcessorMs() - last);
    if (isOver) return;
    setImmediate(look);
    // Without what the look itself takes.
    last = onProcessorMs();
  };
  setImmediate(look);
  const result = await work();
  isOver = true;
  times.sort((a, b) => a - b);
  const longestMs = times.at(-1) ?? 0;
  const p999Ms = times[Math.floor(times.length * 0.999)] ?? longestMs;
  return { result, longestMs, p999Ms, turns: times.length };
}

/** How long this thread has had a processor. */
function onProcessorMs(): number {
  const [nanos = '0'] = readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ');
  return Number(nanos) / 1e6;
}
