/** Where the newer Debian comes from: without a mirror one sentence says what is missing, and nothing unsigned is taken. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { tempDir } from '../support/db.js';
import { missingTools } from '../support/debian.js';

const program = fileURLToPath(new URL('../support/newer-debian.js', import.meta.url));

/** The program on a cache of its own: its exit code, what it said, what is left of the group. */
async function unpack(
  t: TestContext,
  group: string,
  mirror: string,
): Promise<{ code: number; lines: string[]; left: string[] }> {
  const cache = await tempDir(t);
  const env = {
    ...process.env,
    XDG_CACHE_HOME: cache,
    EBBTIDE_DEBIAN_MIRROR: mirror,
    EBBTIDE_NEWER_SUITE: 's',
  };
  const { code, stderr } = await new Promise<{ code: number; stderr: string }>((resolve) => {
    const child = execFile(process.execPath, [program, group], { env }, (_error, _stdout, text) =>
      resolve({ code: child.exitCode ?? -1, stderr: text }),
    );
  });
  const base = join(cache, 'ebbtide-test/newer-s');
  const left = code === 2 ? [] : readdirSync(base).filter((name) => name !== 'apt');
  return { code, lines: stderr.trimEnd().split('\n'), left };
}

const needsApt = missingTools(['apt-get', 'flock']);

test('given no mirror, then one sentence says what is missing, and nothing is left', {
  skip: needsApt,
}, async (t) => {
  const { code, lines, left } = await unpack(t, 'etcd', 'http://127.0.0.1:1/debian');
  assert.equal(code, 1);
  assert.deepEqual(lines, [
    'unpacking etcd-server, etcd-client of Debian s',
    'etcd-server, etcd-client of Debian s missing: http://127.0.0.1:1/debian was not reached',
  ]);
  assert.deepEqual(left, []);
});

test('given a mirror whose lists nobody has signed, then nothing is taken from it', {
  skip: needsApt,
}, async (t) => {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    asked.push(request.url ?? '');
    if (request.url !== '/dists/s/Release') response.writeHead(404).end();
    else response.end('Suite: s\nCodename: s\nComponents: main\nArchitectures: all amd64 arm64\nSHA256:\n');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  const mirror = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const { code, lines, left } = await unpack(t, 'containerd', mirror);
  assert.equal(code, 1);
  assert.match(lines.at(-1) ?? '', /^containerd of Debian s missing: .*not signed/);
  assert.ok(asked.includes('/dists/s/Release.gpg'), 'its signature was asked for');
  assert.ok(!asked.some((url) => /Packages|pool/.test(url)), asked.join(' '));
  assert.deepEqual(left, []);
});

test('given a group that is not known, then the known ones are named', async (t) => {
  const { code, lines } = await unpack(t, 'docker', 'http://127.0.0.1:1');
  assert.deepEqual([code, lines], [2, ['no group is called docker: containerd, etcd, go']]);
});
