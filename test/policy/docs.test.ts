/** The example of docs/policies.md, as it stands there. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { imageKey } from '../../src/engine/schema/keys.js';
import type { ImageRecord } from '../../src/model/records.js';
import { parseTimestamp } from '../../src/model/time.js';
import { openDB } from '../../src/open.js';
import { parsePolicy } from '../../src/policy/policy.js';
import { putRecord, readRecord } from '../../src/stores/common.js';
import { checkDocument } from '../cli/schema.js';
import { Cli } from '../cli/support.js';
import { repository } from '../coverage/consumer.js';
import { tempDir } from '../support/db.js';
import { Host } from './host.js';

const KIB = 1024;
const BASE = 'base';

/** Name, namespace, KiB of its own layer, day of January it was made; without one, now. */
const images: readonly (readonly [string, string, number, number?])[] = [
  ['web:1', 'default', 200, 4],
  ['web:2', 'default', 200, 3],
  ['web:3', 'default', 200, 8],
  ['web:4', 'default', 200, 9],
  ['db:9', 'default', 400, 2],
  ['job:1', 'ci', 200, 10],
  ['job:2', 'ci', 200],
];

test('given the example of the documentation, when it is run, then it prints what is printed there', async (t) => {
  const text = readFileSync(join(repository, 'docs', 'policies.md'), 'utf8');
  const [, policy = ''] = /```json\n([\s\S]*?)```/.exec(text) ?? [];
  const [, command = '', printed = ''] = /```console\n\$ (.*)\n([\s\S]*?)```/.exec(text) ?? [];
  parsePolicy(JSON.parse(policy));
  const root = join(await tempDir(t), 'store');
  {
    await using db = await openDB({
      root,
      snapshotters: ['native'],
      durability: 'visible',
      log: () => undefined,
    });
    const host = new Host(db, 1);
    for (const [name, namespace, kib, day] of images) {
      const layer = await host.blob(namespace, `layer of ${name}`, kib * KIB);
      const labels: Record<string, string> = { 'containerd.io/gc.ref.content.l.0': layer };
      if (name.startsWith('web'))
        labels['containerd.io/gc.ref.content.l.1'] = await host.blob(namespace, BASE, 400 * KIB);
      const digest = await host.blob(
        namespace,
        `manifest of ${name}`,
        500 + (name.startsWith('web') ? 4096 : 0),
        labels,
      );
      const at =
        day === undefined ? undefined : parseTimestamp(`2026-01-${String(day).padStart(2, '0')}T00:00:00Z`);
      const image = { target: { digest, mediaType: 'm', size: 500 } };
      for (const each of name === 'web:4' ? [name, 'web:stable'] : [name]) {
        await db.images.create({ namespace }, { ...image, name: each });
        if (at === undefined) continue;
        const k = imageKey(namespace, each);
        await db.engine.update((tx) => {
          const record = readRecord<ImageRecord>(tx, k);
          if (record !== undefined) putRecord(tx, k, { ...record, createdat: at, updatedat: at });
        });
      }
    }
    const container = { runtime: { name: 'runc' }, spec: { typeUrl: '', value: Buffer.from('{}') } };
    await db.containers.create({ namespace: 'default' }, { ...container, id: 'db', image: 'db:9' });
  }
  const file = join(root, '..', 'policy.json');
  await writeFile(file, policy);
  const cli = new Cli(root);
  const words = command
    .split(' ')
    .slice(1)
    .map((word) => (word === 'policy.json' ? file : word));
  const { code, stdout, stderr } = await cli.run(...words);
  assert.equal(code, 0, stderr);
  // What follows is about the disk of this host.
  const lines = stdout.trimEnd().split('\n');
  assert.deepEqual(lines.slice(0, -3), printed.trimEnd().split('\n'));
  const outcome = await cli.run(...words.filter((word) => word !== '--kept'), '--json');
  checkDocument(['policy', 'plan'], JSON.parse(outcome.stdout));
});
