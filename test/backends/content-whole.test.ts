/**
 * Ingests appear and go whole: a lister, while others come and end, are killed, or have left something
 * finds only ingests that can be opened.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, readdir, readFile, rename, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { openContent } from '../../src/backends/content/store.js';
import { digestOf } from '../../src/model/digest.js';
import { ingestOf } from './content-fixture.js';
import { recordingLog, tempDir } from './temp.js';

const STORE = JSON.stringify(new URL('../../src/backends/content/store.js', import.meta.url).href);

/** What a lister that knows containerd's layout, and nothing of ours, finds wrong with the ingests. */
async function strangersView(root: string): Promise<string[]> {
  const wrong: string[] = [];
  for (const name of await readdir(join(root, 'ingest')).catch(() => [])) {
    const directory = join(root, 'ingest', name);
    const read = (file: string): Promise<string | undefined> =>
      readFile(join(directory, file), 'utf8').catch(() => undefined);
    const [ref, startedAt] = await Promise.all([read('ref'), read('startedat')]);
    // It has ended.
    if (ref === undefined) continue;
    if (createHash('sha256').update(ref).digest('hex') !== name) {
      wrong.push(`${name} has the ref ${JSON.stringify(ref)}`);
    } else if (startedAt !== undefined && Number.isNaN(Date.parse(startedAt)))
      wrong.push(`${name} startedat`);
  }
  return wrong;
}

test('given writers killed while they make ingests, then no ingest is half made and nothing is left but ingests', async (t) => {
  const root = await tempDir(t);
  const program = `
    import { openContent } from ${STORE};
    const content = await openContent(${JSON.stringify(root)});
    console.log('working');
    const user = async (u) => {
      for (let i = 0; ; i++) {
        const writer = await content.writer('ref-' + u + '-' + i, { size: 100 });
        if (i % 3 === 0) await writer.commit(0, '').catch(() => undefined);
        else { await writer.close(); if (i % 3 === 1) await content.abort('ref-' + u + '-' + i); }
      }
    };
    await Promise.all([0, 1, 2, 3, 4, 5].map(user));`;
  for (let kill = 0; kill < 12; kill++) {
    const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exited = once(child, 'exit');
    await Promise.race([once(child.stdout, 'data'), exited]);
    await new Promise((resolve) => setTimeout(resolve, 5 + 7 * kill));
    assert.equal(child.exitCode, null);
    child.kill('SIGKILL');
    await exited;
    const { log, lines } = recordingLog();
    const content = await openContent(root, { log });
    const listed = (await content.listStatuses()).map(({ ref }) => ref);
    assert.ok(!listed.includes(''), 'an ingest without a ref is listed');
    const refs: string[] = [];
    await content.walkStatusRefs((ref) => void refs.push(ref));
    assert.ok(!refs.includes(''), 'an ingest without a ref is walked');
    assert.deepEqual(await strangersView(root), []);
    for (const ref of refs) await content.abort(ref);
    await content.close();
    assert.deepEqual(lines, []);
    assert.deepEqual(await readdir(join(root, 'ingest')).catch(() => []), []);
    assert.deepEqual(await readdir(join(root, '.trash')).catch(() => []), []);
  }
  const drafts = join(root, '.drafts');
  const old = new Date(Date.now() - 120_000);
  for (const name of await readdir(drafts)) await utimes(join(drafts, name), old, old);
  await (await openContent(root)).close();
  assert.deepEqual(await readdir(drafts), []);
});

test('given a draft of another process that died, when cleaned up, then an old one goes and a new one stays', async (t) => {
  const root = await tempDir(t);
  const content = await openContent(root);
  t.after(() => content.close());
  const drafts = join(root, '.drafts');
  const old = new Date(Date.now() - 120_000);
  for (const name of ['dead-0', 'alive-0']) await mkdir(join(drafts, name), { recursive: true });
  await utimes(join(drafts, 'dead-0'), old, old);
  await content.cleanup();
  assert.deepEqual(await readdir(drafts), ['alive-0']);
});

test('given ingests that come and end, when listed until many were seen, then every listing is of whole ones', async (t) => {
  const root = await tempDir(t);
  const { log, lines } = recordingLog();
  const content = await openContent(root, { log });
  t.after(() => content.close());
  let ended = 0;
  let running = true;
  const user = async (u: number): Promise<void> => {
    for (let i = 0; running; i++) {
      const ref = `user ${u}`;
      const writer = await content.writer(ref, { size: i % 2 === 0 ? 8 : 0 });
      await writer.write(randomBytes(8));
      // Now and then open for a while, so that a listing meets it.
      if (i % 4 === 1) await delay(20);
      if (i % 4 === 3) {
        await writer.close();
        await content.abort(ref);
      } else await writer.commit(8, '');
      ended++;
    }
  };
  const users = [0, 1, 2, 3].map(user);
  let seen = 0;
  const strange: string[] = [];
  const list = async (): Promise<void> => {
    for (let i = 0; (seen < 100 || ended < 200 || i < 50) && i < 20_000; i++) {
      for (const status of await content.listStatuses()) {
        assert.match(status.ref, /^user [0-3]$/);
        assert.ok(status.offset === 0 || status.offset === 8);
        assert.ok(status.startedAt > 0n && status.updatedAt >= status.startedAt - 1_000_000_000n);
        seen++;
      }
      if (i % 4 === 0) strange.push(...(await strangersView(root)));
      await content.walkStatusRefs((ref) => assert.match(ref, /^user [0-3]$/));
    }
  };
  await Promise.all([list(), list()]).finally(() => {
    running = false;
  });
  await Promise.all(users);
  assert.ok(seen >= 100 && ended >= 200, `${seen} seen, ${ended} ended`);
  assert.deepEqual(strange, []);
  assert.deepEqual([...new Set(lines)], []);
});

test('given the leftovers of others, then no lister shows them, their refs can be opened, and a cleanup takes the old ones', async (t) => {
  const root = await tempDir(t);
  const { log } = recordingLog();
  const content = await openContent(root, { log });
  t.after(() => content.close());
  await (await content.writer('whole', {})).close();
  const make = async (name: string, files: Record<string, string>, hoursAgo: number): Promise<string> => {
    const directory = join(root, 'ingest', name);
    await mkdir(directory, { recursive: true });
    for (const [file, text] of Object.entries(files)) await writeFile(join(directory, file), text);
    const time = new Date(Date.now() - hoursAgo * 3_600_000);
    await utimes(directory, time, time);
    return directory;
  };
  const hash = (ref: string): string => createHash('sha256').update(ref).digest('hex');
  const at = '2026-01-01T00:00:00Z';
  await make(hash('old'), { ref: '', data: 'x', startedat: at, updatedat: at }, 2);
  await make(hash('older'), { data: 'x' }, 30);
  await make(hash('swapped'), { ref: 'another', data: 'x', startedat: at, updatedat: at }, 2);
  await make('empty', {}, 2);
  // Another process may be making this one at this moment.
  await make(hash('young'), { ref: '', data: 'x' }, 0);
  assert.deepEqual(
    (await content.listStatuses()).map(({ ref }) => ref),
    ['whole'],
  );
  const refs: string[] = [];
  await content.walkStatusRefs((ref) => void refs.push(ref));
  assert.deepEqual(refs, ['whole']);
  const writer = await content.writer('old', {});
  assert.equal((await writer.status()).offset, 0);
  await writer.write(Buffer.from('new'));
  await writer.commit(3, digestOf(Buffer.from('new')));

  await content.cleanup();
  assert.deepEqual((await readdir(join(root, 'ingest'))).sort(), [hash('whole'), hash('young')].sort());
});

test('given instances on one directory that come and go, then no ingest of another is lost', async (t) => {
  const root = await tempDir(t);
  const { log, lines } = recordingLog();
  const first = await openContent(root, { log });
  let running = true;
  let count = 0;
  const writing = (async () => {
    for (; running; count++) {
      const bytes = Buffer.from(`blob ${count}`);
      const writer = await first.writer(`ref ${count % 3}`, {});
      await writer.write(bytes);
      await writer.commit(bytes.length, digestOf(bytes));
      assert.equal((await first.info(digestOf(bytes))).size, bytes.length);
    }
  })().finally(() => {
    running = false;
  });
  for (let i = 0; running && (i < 40 || count < 100); i++) {
    const other = await openContent(root, { log });
    await other.cleanup();
    await other.close();
  }
  running = false;
  await writing;
  await first.close();
  assert.deepEqual(lines, []);
  assert.deepEqual(await readdir(join(root, 'ingest')), []);
});

test('given an ingest that goes and comes back while it is read, then it is whole or NotFound each time', async (t) => {
  const root = await tempDir(t);
  const { log, lines } = recordingLog();
  const content = await openContent(root, { log });
  t.after(() => content.close());
  await (await content.writer('ref', { size: 5 })).close();
  const directory = ingestOf(root, 'ref');
  let running = true;
  const seen = new Map<string, number>();
  const read = async (): Promise<void> => {
    while (running) {
      const outcome = await content.status('ref').then(
        ({ ref, total }) => `${ref} ${total}`,
        (error: { kind: string }) => error.kind,
      );
      seen.set(outcome, (seen.get(outcome) ?? 0) + 1);
    }
  };
  const readers = [0, 1, 2, 3].map(read);
  for (let i = 0; i < 1000 || seen.size < 2; i++) {
    await rename(directory, `${directory}.gone`);
    await rename(`${directory}.gone`, directory);
  }
  running = false;
  await Promise.all(readers);
  assert.deepEqual([...seen.keys()].sort(), ['NotFound', 'ref 5']);
  assert.deepEqual(lines, []);
});
