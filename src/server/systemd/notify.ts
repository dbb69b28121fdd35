/**
 * Reports the daemon's state to systemd (`Type=notify`), and that its event loop turns (`WatchdogSec=`). Without
 * NOTIFY_SOCKET nothing happens. Never fails: a failed notification must not end a working daemon.
 *
 * Without the addon systemd-notify sends the messages, as a child: the unit needs `NotifyAccess=all` then.
 */
import { execFile } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { datagramSupported, sendDatagram } from '../../system/datagram.js';

export type State = 'ready' | 'reloading' | 'stopping' | 'alive';

export interface Notifier {
  /** `status` is what `systemctl status` shows. */
  report(state: State, status?: string): Promise<void>;
  /** Ends the reports to the watchdog. */
  close(): void;
}

const messages: Readonly<Record<State, () => string>> = {
  ready: () => 'READY=1',
  reloading: () => `RELOADING=1\nMONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`,
  stopping: () => 'STOPPING=1',
  alive: () => 'WATCHDOG=1',
};

/** The watchdog is notified from the first `ready` on. */
export function notifier(warn: (message: string) => void, env = process.env): Notifier {
  const { NOTIFY_SOCKET: address } = env;
  if (!address) return { report: async () => undefined, close: () => undefined };
  let timer: NodeJS.Timeout | undefined;
  const report = async (state: State, status?: string): Promise<void> => {
    const problem = await send(
      address,
      `${messages[state]()}${status === undefined ? '' : `\nSTATUS=${status}`}`,
    );
    if (problem !== undefined) warn(`could not notify systemd that the daemon is ${state}: ${problem}`);
    const period = watchdogMs(env);
    if (state !== 'ready' || period === undefined) return;
    // Half of the time allowed, as sd_watchdog_enabled(3) recommends.
    timer ??= setInterval(() => void report('alive'), period / 2).unref();
  };
  return { report, close: () => clearInterval(timer) };
}

/** Undefined: there is no watchdog, or it watches another process. */
function watchdogMs({ WATCHDOG_USEC, WATCHDOG_PID }: NodeJS.ProcessEnv): number | undefined {
  const period = Number(WATCHDOG_USEC) / 1000;
  if (!(period > 0) || (WATCHDOG_PID !== undefined && Number(WATCHDOG_PID) !== process.pid)) return undefined;
  return period;
}

/** The receiver's queue is full: it is read soon. */
const RETRY_MS = 50;
const RETRIES_MAX = 40;

/** Returns why it was not sent. */
async function send(address: string, text: string): Promise<string | undefined> {
  if (!datagramSupported) return sendByChild(text);
  let problem = sendDatagram(address, text);
  for (let i = 0; problem === 'EAGAIN' && i < RETRIES_MAX; i++) {
    await sleep(RETRY_MS);
    problem = sendDatagram(address, text);
  }
  return problem;
}

function sendByChild(text: string): Promise<string | undefined> {
  const args = [`--pid=${process.pid}`, ...text.split('\n')];
  return new Promise((resolve) => {
    execFile('systemd-notify', args, { timeout: 5000 }, (error) => resolve(error?.message));
  });
}
