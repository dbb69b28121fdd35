/** The process at the other end of a unix socket, as the kernel recorded it when the connection was made. */
export interface Peer {
  readonly uid: number;
  readonly pid: number;
}

/** Whether it may do all that this process may: as root, or as the same user. */
export const isOwner = ({ uid }: Peer): boolean => uid === 0 || uid === process.geteuid?.();
