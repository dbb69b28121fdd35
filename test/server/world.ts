/** A daemon in this process on a store of its own, with a client; gone with the test. */
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { daemonOptions, type GivenOptions } from '../../src/server/config.js';
import { Daemon } from '../../src/server/daemon.js';
import { tempDir } from '../support/db.js';
import { TestClient } from './client.js';

export interface World {
  root: string;
  daemon: Daemon;
  client: TestClient;
  /** Another connection; `undefined`: no namespace header. */
  connect(namespace?: string): TestClient;
}

/** `base`: where its root is made; a directory of its own unless told. */
export async function world(t: TestContext, given: GivenOptions = {}, base?: string): Promise<World> {
  const root = join(base ?? (await tempDir(t, 'ebbtide-server-')), 'root');
  const options = daemonOptions(root, {}, { gc: 'on-request', logLevel: 'fatal', ...given });
  const daemon = await Daemon.start(options);
  const clients: TestClient[] = [];
  const connect = (namespace?: string): TestClient => {
    const client = new TestClient(daemon.address, namespace);
    clients.push(client);
    return client;
  };
  t.after(async () => {
    for (const client of clients) client.close();
    await daemon.stop();
  });
  return { root, daemon, client: connect('test'), connect };
}

export const code = {
  canceled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  notFound: 5,
  alreadyExists: 6,
  resourceExhausted: 8,
  failedPrecondition: 9,
  outOfRange: 11,
  unimplemented: 12,
  internal: 13,
  unavailable: 14,
} as const;
