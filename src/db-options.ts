/** The options of `openDB`: which there are and what they may be. Called by db.ts before anything is opened. */
import { resolve } from 'node:path';
import type { ContentBackend, SnapshotterBackend } from './backends/contract.js';
import type { OpenOptions } from './db.js';
import { invalidArgument } from './errors.js';
import { checkGrace } from './gc/expiry-clock.js';

export const snapshotterNames = ['native', 'overlayfs'] as const;
export type SnapshotterName = (typeof snapshotterNames)[number];

const knownOptions = new Set([
  'root',
  'engine',
  'etcd',
  'snapshotters',
  'core',
  'policy',
  'durability',
  'publisher',
  'log',
  'enableEtcdGC',
  'leaseBackend',
  'expiryGraceMs',
]);

export function validateOptions(options: OpenOptions): void {
  if (typeof options?.root !== 'string' || options.root === '') {
    throw invalidArgument('openDB needs a root directory', {
      remedy: 'openDB({ root: "/var/lib/ebbtide" })',
    });
  }
  for (const name of Object.keys(options)) {
    if (!knownOptions.has(name)) {
      throw invalidArgument(`openDB has no option "${name}"`, {
        remedy: `known: ${[...knownOptions].join(', ')}`,
      });
    }
  }
  const choices = {
    engine: ['lmdb', 'memory'],
    core: ['native', 'typescript'],
    policy: ['shared', 'isolated'],
    durability: ['flushed', 'visible'],
  } as const;
  for (const [name, allowed] of Object.entries(choices)) {
    const value = options[name as keyof typeof choices];
    if (value !== undefined && !(allowed as readonly string[]).includes(value)) {
      throw invalidArgument(`openDB option ${name} is "${value}"`, {
        remedy: `use one of ${allowed.join(', ')}`,
      });
    }
  }
  checkGrace(options.expiryGraceMs);
  for (const name of options.snapshotters ?? []) {
    if (!snapshotterNames.includes(name)) {
      throw invalidArgument(`there is no snapshotter "${name}"`, {
        remedy: `known: ${snapshotterNames.join(', ')}`,
      });
    }
  }
}

/** What tells a host of given parts from others on its machine: content may be shared, snapshotters have one owner. */
export function directoryOf(
  content: ContentBackend,
  backends: ReadonlyMap<string, SnapshotterBackend>,
): string | undefined {
  const roots = [...[...backends].sort().map(([, backend]) => backend.root), content.root];
  const root = roots.find((one) => one !== undefined);
  return root === undefined ? undefined : resolve(root);
}
