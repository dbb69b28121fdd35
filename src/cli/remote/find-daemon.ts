/** The daemon that a verb works through: the one that was named, or the root's. Called by the runner and by verbs that need none. */
import { isKind, unavailable } from '../../errors.js';
import { StoreInUse } from '../../in-use.js';
import { identityAt, identityText } from '../../system/file-identity.js';
import { quoted } from '../output/printable.js';
import type { RemoteStore } from './store.js';

/** What the command line says of the daemon. */
interface Wanted {
  root: string;
  address?: string;
  readOnly?: boolean;
}

/** The daemon that was named, or else the root's; undefined without one, and with `--read-only`. */
export async function daemonOf({
  root,
  address = process.env.EBBTIDE_ADDRESS,
  readOnly,
}: Wanted): Promise<RemoteStore | undefined> {
  if (readOnly) return undefined;
  if (!address) return findDaemon(root);
  const [{ RemoteStore }, { socketPath }] = await Promise.all([
    import('./store.js'),
    import('../../server/run-file.js'),
  ]);
  return RemoteStore.connect(socketPath(address));
}

/**
 * The root's daemon, if there is one. What listens at its address may be the daemon of another root: of the one that this root is a
 * copy of, or one that took the address of a daemon that was killed.
 */
export async function findDaemon(root: string): Promise<RemoteStore | undefined> {
  const daemon = await daemonAt(root);
  if (daemon === undefined) return undefined;
  const here = identityAt(root);
  if (here !== undefined && daemon.rootIdentity === identityText(here)) return daemon;
  await daemon[Symbol.asyncDispose]();
  return undefined;
}

/** What listens at the root's address. */
async function daemonAt(root: string): Promise<RemoteStore | undefined> {
  const [{ daemonAddress }, { isListening }] = await Promise.all([
    import('../../server/run-file.js'),
    import('../../server/connections/listener.js'),
  ]);
  const address = await daemonAddress(root);
  if (!(await isListening(address))) return undefined;
  // Loaded on demand: most runs of the command do not need the client.
  const { RemoteStore } = await import('./store.js');
  return RemoteStore.connect(address).catch((error: unknown) => {
    // It is stopping, or does not answer: then the store itself says who has it.
    if (isKind(error, 'Unavailable')) return undefined;
    throw error;
  });
}

/** Another remedy where the root is in use, it seems by its daemon, and that is of a version that does not say which root it has. */
export async function orOlderDaemon(error: unknown, root: string): Promise<unknown> {
  if (!(error instanceof StoreInUse)) return error;
  await using daemon = await daemonAt(root);
  if (daemon === undefined || daemon.rootIdentity !== undefined) return error;
  return unavailable(`${error.message}, and a daemon of an earlier version listens at its address`, {
    object: daemon.address,
    remedy: `restart that daemon; or, if it is the root's, name it: --address ${quoted(daemon.address)}`,
    cause: error,
  });
}
