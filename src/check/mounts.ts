/** The part of a check that is about active mounts. Called by check.ts. */
import { leaf, namespaceOf } from '../engine/schema/keys.js';
import type { Check } from './under-way.js';

const remedy = 'the next collection removes it: `ebbtide gc`';

export async function checkMounts({ host, findings }: Check): Promise<void> {
  const { gone, unnamed } = host.mounts.leftovers();
  for (const record of gone) {
    await findings.add({
      kind: 'mount-missing',
      object: leaf(record),
      namespace: namespaceOf(record),
      remedy,
    });
  }
  for (const directory of unnamed) await findings.add({ kind: 'mount-orphan', object: directory, remedy });
}
