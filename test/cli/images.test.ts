/** `import` and `export` of what is not only images for this host. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { Blobs, named, tarOfFiles, writeFiles } from '../images/fixtures.js';
import { tempDir } from '../support/db.js';
import { cli } from './support.js';

const NAME = 'example.com/app:1';
const arm64 = { os: 'linux', architecture: 'arm64' };
const s390x = { os: 'linux', architecture: 's390x' };

test('given an index for other hosts and a stranger beside it, when imported and exported, then what is left out is said on standard error', async (t) => {
  const run = await cli(t);
  const blobs = new Blobs();
  const one = await blobs.image([[{ name: 'a', text: 'a' }]], { platform: arm64 });
  const two = await blobs.image([[{ name: 'b', text: 'b' }]], { platform: s390x });
  const index = blobs.index([
    { ...one.manifest, platform: arm64 },
    { ...two.manifest, platform: s390x },
  ]);
  const stranger = blobs.add('text/plain', Buffer.from('x'));
  const source = await writeFiles(await tempDir(t), blobs.layout([named(index, NAME), stranger]));
  const left = new RegExp(
    `^ebbtide: left out entries that are not images: entry ${stranger.digest} is not an image[^\\n]*\\n$`,
  );

  await run.fails(3, /no manifest for linux/, 'import', source, '--unpack', 'native');
  await run.fails(2, /is not a platform/, 'import', source, '--unpack', 'native', '--platform', 'arm');
  const imported = await run.run(
    'import',
    source,
    '--unpack',
    'native',
    '--platform',
    'linux/arm64',
    '--json',
  );
  assert.deepEqual([imported.code, left.test(imported.stderr)], [0, true], imported.stderr);
  assert.equal((JSON.parse(imported.stdout) as unknown[]).length, 1);

  const target = join(run.root, '..', 'out');
  const exported = await run.run('export', NAME, '-o', target, '--platform', 'linux/s390x', '--json');
  assert.equal(exported.code, 0, exported.stderr);
  assert.equal(
    exported.stderr,
    `ebbtide: ${NAME} is ${two.manifest.digest} there: a part of ${index.digest}\n`,
  );
  const { images } = JSON.parse(exported.stdout) as { images: unknown };
  assert.deepEqual(images, [{ name: NAME, digest: two.manifest.digest, reducedFrom: index.digest }]);
  assert.match(await readFile(join(target, 'manifest.json'), 'utf8'), /"example\.com\/app:1"/);
});

test('given an archive on standard input, then `import -` takes it, and says what is wrong with another', async (t) => {
  const run = await cli(t);
  const blobs = new Blobs();
  const { manifest } = await blobs.image([[{ name: 'a', text: 'a'.repeat(200_000) }]], { plain: true });
  const archive = await tarOfFiles(blobs.layout([named(manifest, NAME)]));
  const cut = await run.fed(archive.subarray(0, archive.length / 2), 'import', '-');
  assert.equal(cut.code, 2);
  assert.match(cut.stderr, /cannot import the archive: malformed tar archive: it ends inside/);
  const { code, stdout, stderr } = await run.fed(archive, 'import', '-', '--json');
  assert.deepEqual({ code, stderr }, { code: 0, stderr: '' });
  const [image] = JSON.parse(stdout) as { name: string; target: { digest: string } }[];
  assert.deepEqual([image!.name, image!.target.digest], [NAME, manifest.digest]);
});
