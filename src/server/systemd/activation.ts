/**
 * Socket activation: systemd opens the daemon's sockets, and starts it when a client connects (`LISTEN_FDS`,
 * sd_listen_fds(3)). systemd keeps a socket, its mode and its owner; the daemon only accepts. Called by `ebbtide serve`.
 */
import { fstatSync, readFileSync } from 'node:fs';
import { failedPrecondition, invalidArgument } from '../../errors.js';
import { messageOf } from '../../system/system-errors.js';

export interface ActivatedSocket {
  readonly fd: number;
  readonly path: string;
}

/** Sockets of systemd in the place of those that the daemon would make. */
export interface ActivatedSockets {
  readonly main?: ActivatedSocket;
  /** Named `proxy` by the unit (`FileDescriptorName=`). */
  readonly proxy?: ActivatedSocket;
}

const FIRST_FD = 3;
const PROXY = 'proxy';

/**
 * Takes the variables out of `env`, so that children do not take the sockets for theirs.
 * InvalidArgument: several sockets for one purpose. FailedPrecondition: something else than a listening unix socket.
 */
export function activatedSockets(env: NodeJS.ProcessEnv = process.env): ActivatedSockets {
  const { LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES = '' } = env;
  for (const name of ['LISTEN_PID', 'LISTEN_FDS', 'LISTEN_FDNAMES']) delete env[name];
  if (Number(LISTEN_PID) !== process.pid) return {};
  const names = LISTEN_FDNAMES.split(':');
  const found: { main?: ActivatedSocket; proxy?: ActivatedSocket } = {};
  for (let i = 0; i < Number(LISTEN_FDS); i++) {
    const purpose = names[i] === PROXY ? 'proxy' : 'main';
    const socket = { fd: FIRST_FD + i, path: pathOf(FIRST_FD + i) };
    if (found[purpose] !== undefined) {
      throw invalidArgument(`systemd passed two sockets: ${found[purpose].path} and ${socket.path}`, {
        object: socket.path,
        remedy: `name the second one with FileDescriptorName=${PROXY}, if it is for a containerd`,
      });
    }
    found[purpose] = socket;
  }
  return found;
}

/** Flags column of a socket that listens (__SO_ACCEPTCON). */
const LISTENS = '00010000';
const STREAM = '0001';

/** The path that a descriptor listens on. Node has no getsockname for unix sockets. */
function pathOf(fd: number): string {
  const refuse = (why: string) =>
    failedPrecondition(`descriptor ${fd} that systemd passed is not a listening unix socket${why}`, {
      object: `descriptor ${fd}`,
      remedy: 'use ListenStream= with a path, and Accept=no',
    });
  try {
    const inode = String(fstatSync(fd).ino);
    for (const line of readFileSync('/proc/net/unix', 'latin1').split('\n')) {
      const [, , , flags, type, , number, path] = line.trim().split(/\s+/);
      if (number === inode && flags === LISTENS && type === STREAM && path !== undefined) return path;
    }
  } catch (error) {
    throw refuse(`: ${messageOf(error)}`);
  }
  throw refuse('');
}
