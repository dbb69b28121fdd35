/** Hosts of one tree for the tests of this folder: DBs with roots of their own on one etcd. */
import { mkdir, symlink } from 'node:fs/promises';
import type { TestContext } from 'node:test';
import type { DB } from '../../src/db.js';
import type { OpenOptions } from '../../src/db-options.js';
import type { EtcdConfig } from '../../src/engine/etcd/client/options.js';
import { EtcdEngine } from '../../src/engine/etcd/engine.js';
import { layout, openDB } from '../../src/open.js';
import { tempDir } from '../support/temp.js';

export const ctx = { namespace: 'ns1' };

export interface HostOptions extends Partial<Omit<OpenOptions, 'etcd'>> {
  etcd: EtcdConfig;
  /** Content directory to use instead of the host's own. */
  content?: string;
}

/** A host with a root in a temporary directory; closed and removed after the test. */
export async function openHost(t: TestContext, { content, ...options }: HostOptions): Promise<DB> {
  const root = options.root ?? (await tempDir(t));
  if (content !== undefined) {
    await mkdir(content, { recursive: true });
    await mkdir(root, { recursive: true });
    await symlink(content, layout.content(root));
  }
  const db = await openDB({
    engine: 'memory',
    snapshotters: ['native'],
    enableEtcdGC: true,
    log: () => {},
    ...options,
    root,
  });
  t.after(() => db.close());
  return db;
}

export function engineOf(db: DB): EtcdEngine {
  if (!(db.engine instanceof EtcdEngine)) throw new Error('no etcd engine');
  return db.engine;
}

/** Asks again until it is so; the time is only a bound for what will never come true. */
export async function eventually(
  what: string,
  isSo: () => boolean | Promise<boolean>,
  ms = 20_000,
): Promise<void> {
  const until = performance.now() + ms;
  while (!(await isSo())) {
    if (performance.now() > until) throw new Error(`${what}: not so after ${ms} ms`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
