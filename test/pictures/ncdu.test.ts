/** Debian's ncdu opens what is written for it, and reckons as du does. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { bytes } from '../../src/cli/output/output.js';
import { openDB } from '../../src/open.js';
import { fillOperatorStore } from '../cli/operator-store.js';
import { missingTools } from '../support/debian.js';
import { tempDir } from '../support/temp.js';
import { Screen } from './screen.js';

const hasWindow = (text: string): boolean => text.includes('hide this window');

/** Name and bytes of the entry that is selected after these keys, by ncdu's window about it. */
async function selected(screen: Screen, keys = ''): Promise<{ name: string; size: number }> {
  const text = await screen.press(`${keys}i`, hasWindow);
  await screen.press('i', (now) => !hasWindow(now));
  const [, name] = /Name: +(.*?) *x?$/m.exec(text) ?? [];
  const [, size] = /Disk usage: .*\(([\d,.]+) B\)/.exec(text) ?? [];
  assert.ok(name !== undefined && size !== undefined, text);
  return { name: name.replace(/ *[x|]$/, ''), size: Number(size.replaceAll(/[,.]/g, '')) };
}

test('given the file, when ncdu shows it, then its sizes of roots are the totals of du', async (t: TestContext) => {
  const missing = missingTools(['ncdu', 'script']);
  if (missing !== undefined) return t.skip(missing);
  const dir = await tempDir(t);
  const root = join(dir, 'store');
  await fillOperatorStore(root, dir);
  await using db = await openDB({ root, readOnly: true, log: () => undefined });
  let text = '';
  for await (const piece of db.picture({}, { format: 'ncdu', disk: true })) text += piece;
  const file = join(dir, 'graph.json');
  await writeFile(file, text);
  const usage = await db.du({}, { by: 'root', disk: true });
  const images = usage.rows.filter(({ kind, namespace }) => kind === 'image' && namespace === 'default');
  const screen = new Screen(['ncdu', '--color', 'off', '-f', file]);
  try {
    const first = await screen.press('', (text) => text.includes('Total disk usage'));
    assert.match(first, new RegExp(`Total disk usage: +${bytes(usage.disk!.total)}`));
    assert.equal((await selected(screen)).name, 'default');
    // Its first entry leads back up.
    await screen.press('\r', (text) => text.includes('/default -'));
    const found = new Map<string, number>();
    for (let n = 0; n < images.length + 4; n++) {
      const { name, size } = await selected(screen, 'j');
      found.set(name, size);
    }
    for (const { name, total: size } of images) assert.equal(found.get(name), size, name);
  } finally {
    await screen.close('q');
  }
});
