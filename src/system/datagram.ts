/** Sends a datagram to a unix socket, which Node cannot. Called by the daemon, to notify systemd. */
import { loadAddon } from './addon.js';
import { errnoName } from './errno-names.js';

const addon = loadAddon('ebbtide_sys') as
  | { sendDatagram?(address: string, bytes: string): number }
  | undefined;

/** Whether `sendDatagram` works here. */
export const datagramSupported: boolean = addon?.sendDatagram !== undefined;

/**
 * Never waits for the receiver.
 * @param address a path, or `@` and the name of an abstract socket
 * @returns undefined if it was sent, else why not, like `EAGAIN`
 */
export function sendDatagram(address: string, text: string): string | undefined {
  const errno = addon?.sendDatagram?.(address, text) ?? ENOTSUP;
  return errno === 0 ? undefined : errnoName(errno);
}

const ENOTSUP = 95;
