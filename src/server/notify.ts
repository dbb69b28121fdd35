/**
 * Reports the daemon's state to systemd (`Type=notify`). Node has no datagram unix sockets, so it runs
 * systemd-notify; without NOTIFY_SOCKET nothing happens. Never fails: a failed notification must not end a
 * working daemon.
 */
import { execFile } from 'node:child_process';

export type Notify = (state: 'ready' | 'stopping') => Promise<void>;

export function notifier(warn: (message: string) => void, env = process.env): Notify {
  if (!env.NOTIFY_SOCKET) return () => Promise.resolve();
  return (state) =>
    new Promise((resolve) => {
      const text = state === 'ready' ? 'READY=1' : 'STOPPING=1';
      const args = [`--pid=${process.pid}`, text];
      execFile('systemd-notify', args, { timeout: 5000 }, (error) => {
        if (error) warn(`could not notify systemd that the daemon is ${state}: ${error.message}`);
        resolve();
      });
    });
}
