/**
 * A check beside writers at the worst moment: the backend has done its part, and the record does not say so yet. What looks wrong is looked at
 * once more under the guard of its object, for which the check waits; without the writers' guards it is reported.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkStore } from '../../src/check/check.js';
import type { CheckHost } from '../../src/check/under-way.js';
import { digestOf } from '../../src/model/digest.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { Guards } from '../../src/stores/guards.js';
import { ns1 } from '../stores/fixtures.js';
import { altered, alteredWriters, type StoreWorld, storeWorld } from '../stores/store-world.js';

/** Where a writer stops until it is let go. */
class Stop {
  reach: () => void = () => undefined;
  open: () => void = () => undefined;
  readonly reached = new Promise<void>((resolve) => {
    this.reach = resolve;
  });
  readonly #opened = new Promise<void>((resolve) => {
    this.open = resolve;
  });

  async here(): Promise<void> {
    this.reach();
    await this.#opened;
  }
}

const bytes = Buffer.from('a blob');
const writers: Readonly<Record<string, (w: StoreWorld) => Promise<unknown>>> = {
  'blob-orphan': (w) => {
    const target = { mediaType: 'x/y', digest: digestOf(bytes), size: bytes.length };
    return writeBlob(w.content, ns1, 'r', bytes, target);
  },
  'snapshot-missing': async (w) => {
    await w.snapshots.prepare(ns1, 'active', '');
    await w.snapshots.commit(ns1, 'committed', 'active');
  },
};
const parts = { hasAllContent: true, hasAllSnapshots: true, verifyGraph: async () => [] };

for (const [kind, write] of Object.entries(writers)) {
  for (const guarded of [true, false]) {
    const outcome = guarded ? 'nothing is found' : `a ${kind} is found`;
    test(`given a writer between its backend and its record, when checked ${guarded ? 'under' : 'without'} its guard, then ${outcome}`, async (t) => {
      const stop = new Stop();
      const w = await storeWorld(t, {
        content: alteredWriters((real) => ({
          commit: async (size, expected) => {
            await real.commit(size, expected);
            await stop.here();
          },
        })),
        native: (real) => ({
          commit: async (...args) => {
            await real.commit(...args);
            await stop.here();
          },
        }),
      });
      await w.namespaces.create({}, 'ns1');
      const writing = write(w);
      await stop.reached;
      const shared = altered<Guards>(w.host.guards, {
        acquire: (name) => {
          const taken = w.host.guards.acquire(name);
          // The check waits for the writer, which may go on.
          stop.open();
          return taken;
        },
      });
      const host = altered<CheckHost>(w.host, { guards: guarded ? shared : new Guards() });
      const { findings } = await checkStore(host, parts, undefined);
      stop.open();
      await writing;
      assert.deepEqual(
        findings.map((finding) => finding.kind),
        guarded ? [] : [kind],
      );
    });
  }
}
