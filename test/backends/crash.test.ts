/** Processes killed in the middle of their work: what they leave is whole, or gone after the next open and cleanup. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { openContent } from '../../src/backends/content/store.js';
import type { SnapshotInfo } from '../../src/backends/contract.js';
import { exists } from '../../src/backends/files.js';
import { openNative } from '../../src/backends/snapshotters/native.js';
import { openOverlayfs } from '../../src/backends/snapshotters/overlayfs.js';
import { digestOf } from '../../src/model/digest.js';
import { tempDir } from './temp.js';

const KILLS = 5;

/** Runs a program that works for ever, and kills it `afterMs` after it said that it began. */
async function runAndKill(program: string, afterMs: number): Promise<void> {
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const exited = once(child, 'exit');
  await Promise.race([once(child.stdout, 'data'), exited]);
  await new Promise((resolve) => setTimeout(resolve, afterMs));
  assert.equal(child.exitCode, null, 'the program should work until it is killed');
  child.kill('SIGKILL');
  await exited;
}

const module = (path: string): string =>
  JSON.stringify(new URL(`../../src/backends/${path}`, import.meta.url).href);

for (const [name, open] of Object.entries({ openNative, openOverlayfs })) {
  test(`given ${name} users that are killed, then every record has its directory and the rest goes`, async (t) => {
    const root = await tempDir(t);
    const file = name === 'openNative' ? 'snapshotters/native.js' : 'snapshotters/overlayfs.js';
    const program = `
      import { ${name} as open } from ${module(file)};
      import { writeFileSync } from 'node:fs';
      const s = await open(${JSON.stringify(root)});
      if (!(await s.stat('base').catch(() => undefined))) {
        await s.stat('seed').catch(() => s.prepare('seed', ''));
        await s.commit('base', 'seed');
      }
      console.log('working');
      const user = async (u) => {
        for (let i = 0; ; i++) {
          const key = process.pid + '-' + u + '-' + i;
          await s.prepare(key, 'base');
          if (i % 2) await s.commit('c' + key, key);
          if (i % 3 === 0) await s.remove(i % 2 ? 'c' + key : key);
          if (i % 7 === 0) await s.cleanup();
        }
      };
      await Promise.all([0, 1, 2, 3].map(user));`;
    for (let kill = 0; kill < KILLS; kill++) {
      await runAndKill(program, 30 + 40 * kill);
      const s = await open(root);
      const infos: SnapshotInfo[] = [];
      await s.walk((info) => void infos.push(info));
      assert.ok(infos.length > 0);
      for (const info of infos) {
        if (info.kind === 'committed') continue;
        const [mount] = await s.mounts(info.name);
        const path = mount!.options.find((o) => o.startsWith('upperdir='))?.slice('upperdir='.length);
        assert.ok(await exists(path ?? mount!.source), info.name);
      }
      await s.cleanup();
      const left = await readdir(join(root, 'snapshots'));
      assert.equal(left.length, infos.length);
      await s.close();
    }
  });
}

test('given content writers that are killed, then every blob has its digest and every ingest can be resumed', async (t) => {
  const root = await tempDir(t);
  const program = `
    import { openContent } from ${module('content/store.js')};
    const content = await openContent(${JSON.stringify(root)});
    console.log('working');
    const user = async (u) => {
      for (let i = 0; ; i++) {
        const writer = await content.writer('ref' + u, {}).catch((e) => { console.error(e); process.exit(1); });
        const text = process.pid + '-' + u + '-' + i + ' ';
        for (let n = 0; n < 20; n++) await writer.write(Buffer.from(text.repeat(500)));
        const digest = writer.digest();
        await writer.commit(0, '');
        if (i % 3 === 0) await content.deleteMany([digest]);
        if (i % 5 === 0) await content.abort('ref' + u);
      }
    };
    await Promise.all([0, 1, 2, 3].map(user));`;
  let blobs = 0;
  for (let kill = 0; kill < KILLS; kill++) {
    await runAndKill(program, 30 + 60 * kill);
    const content = await openContent(root);
    await content.walk(async ({ digest }) => {
      blobs++;
      assert.equal(digestOf(await readFile(join(root, 'blobs/sha256', digest.slice(7)))), digest);
    });
    for (const { ref, offset } of await content.listStatuses()) {
      const writer = await content.writer(ref, {});
      assert.equal((await writer.status()).offset, offset);
      await writer.close();
    }
    await content.close();
    if (await exists(join(root, '.trash'))) assert.deepEqual(await readdir(join(root, '.trash')), []);
  }
  assert.ok(blobs > 0);
});
