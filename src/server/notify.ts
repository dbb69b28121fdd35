/**
 * Tells systemd how the daemon is doing (`Type=notify`). Node has no datagram unix sockets, so systemd-notify does the
 * talking; without NOTIFY_SOCKET nothing happens. Never fails: a daemon that works is no failure for not being heard.
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
        if (error) warn(`systemd was not told that the daemon is ${state}: ${error.message}`);
        resolve();
      });
    });
}
