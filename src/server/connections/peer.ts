/**
 * The process at the other end of a unix socket, as the kernel recorded it when the connection was made
 * (SO_PEERCRED).
 */
import type { Socket } from 'node:net';
import { peerCredentials } from '../../backends/sys.js';

export interface Peer {
  readonly uid: number;
  readonly pid: number;
}

/** Unknown, because the addon does not load. All such peers share as one user, and none of them is root. */
const UNKNOWN: Peer = { uid: -1, pid: -1 };

/** Whether it may do all that this process may: as root, or as the same user. */
export const isOwner = ({ uid }: Peer): boolean => uid === 0 || uid === process.geteuid?.();

export function peerOf(socket: Socket): Peer {
  // Node has no public access to a socket's descriptor.
  const { fd } = (socket as { _handle?: { fd?: number } })._handle ?? {};
  return (fd !== undefined && fd >= 0 && peerCredentials(fd)) || UNKNOWN;
}
