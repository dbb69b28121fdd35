/**
 * System calls on unix sockets that Node lacks. Without the addon nothing is known of a peer, and connections
 * are accepted by Node alone. Called by the daemon's listener and its connections.
 */
import { loadAddon } from './addon.js';

const addon = loadAddon('ebbtide_sys') as
  | {
      peerCredentials?(descriptor: number): Buffer | number;
      acceptWaiting?(listening: number, most: number): Uint32Array | number;
      hasHungUp?(descriptor: number): boolean | number;
      duplicate?(descriptor: number): number;
    }
  | undefined;

/** Node has no public access to the descriptor of a socket or a server; -1 if it has none. */
export const descriptorOf = (owner: object): number =>
  (owner as { _handle?: { fd?: number } | null })._handle?.fd ?? -1;

/** SO_PEERCRED of a connected socket: the process that connected. Undefined if that is unknown. */
export function peerCredentials(descriptor: number): { pid: number; uid: number } | undefined {
  const bytes = addon?.peerCredentials?.(descriptor);
  if (!Buffer.isBuffer(bytes)) return undefined;
  return { pid: bytes.readInt32LE(0), uid: bytes.readUInt32LE(4) };
}

/** Whether the peer has closed a connected socket, however much of what it sent is unread. */
export const hasHungUp = (descriptor: number): boolean => addon?.hasHungUp?.(descriptor) === true;

/** Another descriptor of the same connection, which the caller owns; undefined without the addon, or when there are too many. */
export function duplicate(descriptor: number): number | undefined {
  const found = addon?.duplicate?.(descriptor) ?? -1;
  return found < 0 ? undefined : found;
}

export interface Accepted {
  readonly fd: number;
  readonly pid: number;
  readonly uid: number;
}

/**
 * Accepts connections that wait at a socket of Node's, at most so many. The caller owns their descriptors,
 * which do not block.
 */
export function acceptWaiting(listening: number, most: number): Accepted[] {
  const found = addon?.acceptWaiting?.(listening, most);
  if (!(found instanceof Uint32Array)) return [];
  const accepted: Accepted[] = [];
  for (let at = 0; at < found.length; at += 3) {
    const [fd = -1, pid = -1, uid = -1] = found.subarray(at, at + 3);
    accepted.push({ fd, pid, uid });
  }
  return accepted;
}
