/**
 * The page, and the files for speedscope and for Chrome's developer tools, in the programs that open them: Debian's Chromium, the
 * speedscope of npm, and the worker that the Memory panel reads snapshots with. `EBBTIDE_PICTURES=DIR` keeps pictures of the page.
 */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { after, before, describe, type TestContext, test } from 'node:test';
import { pathToFileURL } from 'node:url';
import type { DB } from '../../src/db.js';
import { blobKey } from '../../src/engine/schema/keys.js';
import type { UsageReport } from '../../src/gc/report/retained.js';
import { openDB } from '../../src/open.js';
import { drawPicture, type PictureFormat } from '../../src/pictures/draw.js';
import type { PageData } from '../../src/pictures/view/page-data.js';
import { withId, withLabel } from '../../src/stores/leases.js';
import { loadSynth } from '../../src/synth/load.js';
import { planFor } from '../../src/synth/shape.js';
import { fillOperatorStore } from '../cli/operator-store.js';
import { missingTools } from '../support/debian.js';
import { world as gcWorld } from '../support/gc-world.js';
import { tempDir } from '../support/temp.js';
import { Browser, type Page } from './browser.js';

const ctx = { namespace: 'default' };
/** What breaks a page that does not take names as texts. */
const HOSTILE = `x</script><script>globalThis.broken=1</script>"'<img src=x onerror="globalThis.broken=1"><!--\u2028\u202e\u001b[2J${'n'.repeat(400)}`;

const missing = missingTools(['chromium']);
let dir: string;
let db: DB;
let usage: UsageReport;
let browser: Browser | undefined;

before(async () => {
  if (missing !== undefined) return;
  dir = await tempDir();
  const root = join(dir, 'store');
  await fillOperatorStore(root, dir);
  {
    await using filling = await openDB({ root, log: () => undefined });
    const image = await filling.images.get(ctx, 'registry.example/web:1');
    await filling.images.create(ctx, { ...image, name: HOSTILE, labels: { [`l${'</script>'}`]: HOSTILE } });
    await filling.leases.create(ctx, withId('held'), withLabel('owner', HOSTILE));
    await filling.leases.addResource(ctx, { id: 'held' }, { type: 'images', id: HOSTILE });
  }
  db = await openDB({ root, readOnly: true, log: () => undefined });
  usage = await db.du({}, { by: 'root', disk: true });
  browser = await Browser.start();
});
after(async () => {
  await browser?.close();
  await db?.close();
});

async function drawn(format: PictureFormat, disk = true, from = db): Promise<string> {
  let text = '';
  for await (const piece of from.picture({}, { format, disk })) text += piece;
  return text;
}

async function shown(name: string, text: string, options = {}): Promise<Page> {
  const file = join(dir, `${name}.html`);
  await writeFile(file, text);
  assert.ok(browser);
  return browser.open(pathToFileURL(file).href, options);
}

/** Keeps a picture of the page, if that is asked for. */
async function keep(page: Page, name: string): Promise<void> {
  const { EBBTIDE_PICTURES: to } = process.env;
  if (to === undefined) return;
  await mkdir(to, { recursive: true });
  await writeFile(join(to, `${name}.png`), await page.picture());
}

const dataOf = (text: string): PageData =>
  JSON.parse(/<script type="application\/json" id="data">(.*)<\/script>/.exec(text)![1]!) as PageData;

const row = (name: string): string =>
  `[...document.querySelectorAll('#roots tbody tr')].find((row) => row.cells[2].textContent === ${JSON.stringify(name)})`;
const text = (selector: string): string => `document.querySelector(${JSON.stringify(selector)}).textContent`;

describe('the page', { skip: missing }, () => {
  test('given a host, when its page is opened, then it loads nothing, and has what du says', async () => {
    const html = await drawn('html');
    const page = await shown('host', html);
    await keep(page, 'host');
    assert.deepEqual(page.complaints, []);
    assert.equal(page.requests.length, 1, page.requests.join('\n'));
    const data = dataOf(html);
    assert.equal(data.bytes, usage.disk!.total);
    const frees = new Map(
      data.roots.map(({ of, namespace, name, frees: bytes }) => [`${of} ${namespace} ${name}`, bytes]),
    );
    for (const { kind, namespace = '', name, retained } of usage.rows) {
      if (name !== HOSTILE) assert.equal(frees.get(`${kind} ${namespace} ${name}`), retained, name);
    }
    const wide = await page.value<number>(
      "Math.max(...[...document.querySelectorAll('.bar')].map((bar) => bar.getBoundingClientRect().right)) - document.querySelector('#icicle').getBoundingClientRect().right",
    );
    assert.ok(wide <= 0, `bars end ${wide} pixels beyond the icicle`);
  });

  test('given names and labels that end scripts, when they are shown, then they are texts', async () => {
    const html = await drawn('html');
    assert.equal(html.match(/<\/script>/g)?.length, 2);
    const page = await shown('hostile', html);
    assert.equal(await page.value('globalThis.broken'), undefined);
    assert.equal(await page.value("document.querySelectorAll('img, #page script').length"), 0);
    assert.deepEqual(page.complaints, []);
    const names = await page.value<string[]>(
      "[...document.querySelectorAll('#roots th[scope=row]')].map((th) => th.textContent)",
    );
    const found = names.find((name) => name.startsWith('x</script>'));
    assert.ok(found !== undefined && found.length < 320 && found.includes('…'));
    // Nothing changes the direction of what stands beside it.
    assert.ok(found.includes('<!--\\u2028\\u202e\\x1b[2J'), found);
    assert.equal(await page.value('/[\\u202e\\u001b]/.test(document.body.innerText)'), false);
    // And if one were markup: the policy of the page refuses it.
    await page.value(
      "(() => { const s = document.createElement('script'); s.textContent = 'globalThis.broken = 2'; document.body.append(s); })()",
    );
    assert.equal(await page.value('globalThis.broken'), undefined);
    assert.match(page.complaints.join('\n'), /Content Security Policy/);
  });

  test('given roots that share, when several are chosen, then the page says what du --without says', async () => {
    const page = await shown('without', await drawn('html'));
    const chosen = ['registry.example/web:1', 'registry.example/web:2', 'web'];
    for (const name of chosen) await page.value(`${row(name)}.querySelector('input').click()`);
    const { without } = await db.du({}, { by: 'root', disk: true, without: chosen });
    assert.match(
      await page.value<string>(text('#freed')),
      new RegExp(`^Without 3 roots: .* freed \\(${without!.retained} bytes\\)$`),
    );
    const alone = usage.rows
      .filter(({ name }) => chosen.includes(name))
      .reduce((sum, { retained }) => sum + retained, 0);
    assert.ok(without!.retained > alone, 'they share nothing');
    await keep(page, 'without');
    await page.value("document.querySelector('#what-if button').click()");
    assert.match(await page.value<string>(text('#freed')), /^What if these went/);
  });

  test('given the keyboard alone, when a leaf is searched for, then its page says why it is held', async () => {
    const page = await shown('keys', await drawn('html'), { isDark: true });
    assert.ok(await page.value("matchMedia('(prefers-color-scheme: dark)').matches"));
    await page.press('/');
    await page.type('overlayfs/default');
    await page.press('Enter');
    await page.until("document.activeElement.getAttribute('role') === 'treeitem'");
    assert.match(await page.value<string>(text('#details h2')), /^snapshot overlayfs\/default/);
    const steps = await page.value<string[]>(
      "[...document.querySelectorAll('.way li')].map((li) => li.textContent)",
    );
    assert.match(steps[0]!, /in default a root$/);
    assert.match(steps.at(-1)!, /^snapshot overlayfs\//);
    // What leads to it stays to be read.
    const seen = "[...document.querySelectorAll('.bar:not(.other)')].map((bar) => bar.ariaLevel)";
    assert.deepEqual([...new Set(await page.value<string[]>(seen))].sort().slice(0, 3), ['1', '2', '3']);
    assert.ok(await page.value("document.querySelector('.bar.other') !== null"));
    await keep(page, 'why-dark');
    // Up to its root, which Space selects; Enter enlarges it, Escape goes back.
    await page.press('ArrowUp', ' ');
    const isRoot = await page.value<boolean>("document.querySelector('.bar.selected') !== null");
    assert.equal(isRoot, /^(image|container|lease)/.test(await page.value<string>(text('#details h2'))));
    await page.press('Enter');
    const wide = await page.value<number>('document.activeElement.getBoundingClientRect().width');
    assert.ok(wide > 1000);
    await page.press('Escape', 'Home');
    assert.equal(await page.value(text('#details h2')), join(dir, 'store'));
  });

  test('given a screen reader, when it goes through the page, then there are a tree, a table, and names', async () => {
    const page = await shown('accessible', await drawn('html'));
    const found = await page.accessible();
    const named = (role: string): string[] =>
      found.filter((one) => one.role === role).map(({ name }) => name);
    assert.deepEqual(named('tree'), ['What holds the disk: width is what a removal frees']);
    assert.ok(named('treeitem').some((name) => /^image registry.example\/job:9, 14\.\d MiB$/.test(name)));
    assert.ok(named('treeitem').every((name) => name !== ''));
    assert.ok(named('checkbox').includes('what if image registry.example/job:9 went'));
    assert.ok(named('columnheader').includes('Frees'));
    const levels = await page.value<string[]>(
      "[...document.querySelectorAll('[role=treeitem]')].map((bar) => bar.getAttribute('aria-level'))",
    );
    assert.deepEqual([...new Set(levels)].sort(), ['1', '2', '3', '4', '5']);
  });

  test('given more than a page can have, when it is opened, then what is smaller is summed', async (t: TestContext) => {
    const records = Number(process.env.EBBTIDE_PICTURE_RECORDS ?? 20_000);
    await using synth = await openDB({ root: join(await tempDir(t), 'store'), log: () => undefined });
    await loadSynth(synth.engine, planFor(records), {});
    const html = await drawn('html', false, synth);
    const data = dataOf(html);
    const report = await synth.du({}, { by: 'none' });
    assert.equal(data.bytes, report.kept + report.garbage);
    assert.equal(data.garbage, report.garbage);
    assert.ok(data.nodes.length < 6000 && html.length < 4 * 2 ** 20);
    const below = data.nodes.map(() => 0);
    for (const { up, bytes } of data.nodes.slice(1)) below[up]! += bytes;
    for (const [n, sum] of below.entries())
      if (sum > 0) assert.equal(sum, data.nodes[n]!.bytes, data.nodes[n]!.name);
    assert.ok(data.nodes.some(({ kind }) => kind === 'rest'));
    const page = await shown('large', html);
    assert.deepEqual(page.complaints, []);
    const bars = await page.value<number>("document.querySelectorAll('[role=treeitem]').length");
    assert.ok(bars > 10 && bars < 6000);
    await keep(page, `records-${records}`);
    const unlisted = data.nodes.findIndex(({ kind, root }) => kind === 'root' && root === undefined);
    await page.value(`document.querySelector('[data-index="${unlisted}"]').click()`);
    assert.match(await page.value<string>(text('#details')), /Sets are computed of the 1000 roots/);
    const waste = data.nodes.findIndex(
      ({ kind, up }) => kind === 'rest' && data.nodes[data.nodes[up]!.up]?.kind === 'garbage',
    );
    assert.ok(
      await page.value(`document.querySelector('[data-index="${waste}"]').classList.contains('of-garbage')`),
    );
  });
});

describe('files for other programs', { skip: missing }, () => {
  test('given the file for speedscope, when speedscope opens it, then its total is that of du', async () => {
    const json = await drawn('speedscope');
    const { shared, profiles } = JSON.parse(json) as {
      shared: { frames: { name: string }[] };
      profiles: [{ samples: number[][]; weights: number[]; endValue: number }];
    };
    const [{ samples, weights, endValue }] = profiles;
    const under = new Map<string, number>();
    for (const [n, stack] of samples.entries()) {
      const path = stack.map((frame) => shared.frames[frame]!.name);
      for (const name of path.slice(0, 4))
        under.set(`${path[1]} ${name}`, (under.get(`${path[1]} ${name}`) ?? 0) + weights[n]!);
    }
    assert.equal(endValue, usage.disk!.total);
    assert.equal(
      weights.reduce((sum, weight) => sum + weight, 0),
      endValue,
    );
    for (const { kind, namespace, name, retained } of usage.rows)
      assert.equal(under.get(`${namespace} ${kind} ${name}`) ?? 0, retained, name);
    const app = join(
      dirname(createRequire(import.meta.url).resolve('speedscope/package.json')),
      'dist/release/index.html',
    );
    // As its own command does.
    const source = join(dir, 'profile.js');
    await writeFile(
      source,
      `speedscope.loadFileFromBase64("graph.json", ${JSON.stringify(Buffer.from(json).toString('base64'))})`,
    );
    assert.ok(browser && readFileSync(app, 'utf8').includes('speedscope'));
    const page = await browser.open(`${pathToFileURL(app).href}#localProfilePath=${source}`);
    await page.until("document.title.includes('what holds')");
    await keep(page, 'speedscope');
    assert.match(await page.value<string>('document.title'), /what holds .*store/);
  });

  test("given the file for Chrome's developer tools, when their worker reads it, then it finds what du says each root retains", async () => {
    const snapshot = await drawn('heapsnapshot');
    const { totalSize, edges } = await readBy(snapshot);
    assert.equal(totalSize, usage.disk!.total);
    const retained = new Map(edges.map(({ name, node }) => [name, node.retainedSize]));
    for (const { kind, namespace, name, retained: bytes } of usage.rows)
      assert.equal(retained.get(`${kind} ${name} in ${namespace}`), bytes, name);
    assert.equal(retained.get('garbage'), usage.disk!.lines.garbage);
  });

  test("given a blob of more bytes than a node may have there, when Chrome's worker reads it, then it has all of them", async (t) => {
    const w = await gcWorld(t);
    const size = 11 * 2 ** 30 + 5;
    const name = await w.blob('large');
    await w.put(blobKey('ns1', name), { createdat: 1n, updatedat: 1n, size, labels: {} });
    await w.image('a', 'large');
    let snapshot = '';
    for await (const piece of drawPicture(w, (run) => run(), {}, { format: 'heapsnapshot' }))
      snapshot += piece;
    const { totalSize, edges } = await readBy(snapshot);
    assert.equal(totalSize, size);
    assert.deepEqual(
      edges.map(({ name: edge, node }) => [edge, node.retainedSize]),
      [['image a in ns1', size]],
    );
  });
});

const WORKER =
  'devtools://devtools/bundled/entrypoints/heap_snapshot_worker/heap_snapshot_worker-entrypoint.js';

interface Read {
  totalSize: number;
  /** Of the root of the snapshot. */
  edges: { name: string; node: { retainedSize: number } }[];
}

/** What the worker says of a snapshot. */
async function readBy(snapshot: string): Promise<Read> {
  assert.ok(browser);
  const page = await browser.open(WORKER);
  return page.value<Read>(`(${readInWorker})(${JSON.stringify(WORKER)}, ${JSON.stringify(snapshot)})`);
}

/** Speaks to the worker as the Memory panel does. Runs in a page of the developer tools. */
const readInWorker = `async (url, snapshot) => {
  const [worker, second] = [0, 1].map(() => new Worker(url, { type: 'module' }));
  const ready = (one) => new Promise((resolve) => one.addEventListener('message', ({ data }) => data === 'workerReady' && resolve()));
  await Promise.all([ready(worker), ready(second)]);
  let last = 0;
  const call = (message, ports = []) => {
    const callId = ++last;
    return new Promise((resolve, reject) => {
      const take = ({ data }) => {
        if (data.callId !== callId) return;
        worker.removeEventListener('message', take);
        if (data.error) reject(new Error(data.error)); else resolve(data.result);
      };
      worker.addEventListener('message', take);
      worker.postMessage({ callId, ...message }, ports);
    });
  };
  const { port1, port2 } = new MessageChannel();
  second.postMessage({ callId: 1, disposition: 'setupForSecondaryInit', objectId: 1 }, [port2]);
  await call({ disposition: 'createLoader', objectId: 1 });
  const method = (objectId, methodName, ...methodArguments) => call({ disposition: 'method', objectId, methodName, methodArguments });
  const factory = (objectId, newObjectId, methodName, methodArguments, ports) =>
    call({ disposition: 'factory', objectId, newObjectId, methodName, methodArguments }, ports);
  for (let at = 0; at < snapshot.length; at += 1000) await method(1, 'write', snapshot.slice(at, at + 1000));
  await method(1, 'close');
  await factory(1, 2, 'buildSnapshot', [], [port1]);
  const { totalSize, rootNodeIndex } = await method(2, 'updateStaticData');
  await factory(2, 3, 'createEdgesProvider', [rootNodeIndex]);
  const { items: edges } = await method(3, 'serializeItemsRange', 0, 1000);
  return { totalSize, edges };
}`;
