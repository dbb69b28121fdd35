/**
 * Verbs that take long for a large file end when they are told to, wherever they are: the signal is looked at after each bounded piece of
 * work. How many pages that is is counted here, not how long it takes.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { compactForeign } from '../../src/any-host/compact.js';
import { salvage } from '../../src/any-host/salvage/salvage.js';
import { PageScan } from '../../src/bolt/scan.js';
import { isKind } from '../../src/errors.js';
import { encodeTime, encodeVarint } from '../../src/model/wire.js';
import { tempDir } from '../support/temp.js';
import { makeRoot, writeFields } from './root.js';

/** Each in a page of its own, and its labels in that, too. */
const RECORDS = 400;
/** What is read at once: a record, or what a branch leads to. */
const PAGES_MAX = 100;

/** Without a directory of content, so that nothing contradicts the records. */
async function largeRoot(t: TestContext): Promise<string> {
  const root = await tempDir(t);
  await makeRoot(root, 'example.com/one:1');
  const metadata = join(root, 'io.containerd.metadata.v1.bolt', 'meta.db');
  rmSync(metadata);
  rmSync(join(root, 'io.containerd.content.v1.content'), { recursive: true });
  const blobs = Array.from({ length: RECORDS }, (_, n) => {
    const time = encodeTime(1_700_000_000_000_000_000n + BigInt(n));
    const labels = { text: 'x'.repeat(900) };
    const size = encodeVarint(1);
    return [`sha256:${String(n).padStart(64, '0')}`, { createdat: time, updatedat: time, size, labels }];
  });
  const blob = Object.fromEntries(blobs) as Record<string, object>;
  await writeFields(metadata, { v1: { version: encodeVarint(3), default: { content: { blob } } } } as never);
  return root;
}

const metadataIn = (root: string): string => join(root, 'io.containerd.metadata.v1.bolt', 'meta.db');

/** Counts how often it is asked, and is aborted at the `end`th time. */
class Asked {
  readonly signal = new AbortController().signal;
  looks = 0;

  constructor(end = Number.POSITIVE_INFINITY, ask: () => void = () => undefined) {
    Object.defineProperty(this.signal, 'aborted', {
      get: () => {
        ask();
        return ++this.looks >= end;
      },
    });
  }
}

type Verb = (root: string, output: string, signal: AbortSignal) => Promise<unknown>;

/** Ends it at so many places, and at its last look. */
async function endEverywhere(
  t: TestContext,
  root: string,
  verb: Verb,
  looks: number,
  places: number,
): Promise<void> {
  const directory = await tempDir(t);
  for (let n = 1; n <= places; n++) {
    const asked = new Asked(Math.floor((looks * n) / places));
    await assert.rejects(verb(root, join(directory, 'meta.db'), asked.signal), (error) =>
      isKind(error, 'Canceled'),
    );
    assert.deepEqual(readdirSync(directory), []);
  }
}

test('given a file of many records, when it is compacted, then the signal is heard throughout, and nothing is left', async (t) => {
  const root = await largeRoot(t);
  const asked = new Asked();
  await compactForeign(root, join(await tempDir(t), 'meta.db'), asked.signal);
  assert.ok(asked.looks > RECORDS);
  await endEverywhere(t, root, compactForeign, asked.looks, 5);
});

for (const isDamaged of [false, true])
  test(`given a file of many records${isDamaged ? ' without its meta pages' : ''}, when it is salvaged, then the signal is heard after each record, and nothing is left`, async (t) => {
    const root = await largeRoot(t);
    if (isDamaged) writeFileSync(metadataIn(root), readFileSync(metadataIn(root)).fill(0, 0, 8192));
    let [pages, since, most] = [0, 0, 0];
    const { page } = PageScan.prototype;
    t.mock.method(PageScan.prototype, 'page', function (this: PageScan, id: number) {
      pages++;
      since++;
      return page.call(this, id);
    });
    const asked = new Asked(Number.POSITIVE_INFINITY, () => {
      most = Math.max(most, since);
      since = 0;
    });
    const { records } = await salvage(root, join(await tempDir(t), 'meta.db'), asked.signal);
    assert.deepEqual(
      records.map(({ current, older }) => current + older),
      [RECORDS],
    );
    assert.ok(pages > RECORDS && most > 0 && most < PAGES_MAX, `${most} pages without a look`);
    await endEverywhere(t, root, salvage, asked.looks, 5);
  });
