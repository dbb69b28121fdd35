/** Who is at the other end of a unix socket, as the kernel noted it when the connection was made (SO_PEERCRED). */
import type { Socket } from 'node:net';
import { peerCredentials } from '../../backends/sys.js';

export interface Peer {
  readonly uid: number;
  readonly pid: number;
}

/** Where the addon does not load, all that is known: somebody. They all share as one user then, and none of them is root. */
const UNKNOWN: Peer = { uid: -1, pid: -1 };

/** Whether it may do all that this process can do: as root, or as the same user. */
export const isOwner = ({ uid }: Peer): boolean => uid === 0 || uid === process.geteuid?.();

export function peerOf(socket: Socket): Peer {
  // Node has no other way to a socket's descriptor.
  const { fd } = (socket as { _handle?: { fd?: number } })._handle ?? {};
  return (fd !== undefined && fd >= 0 && peerCredentials(fd)) || UNKNOWN;
}
