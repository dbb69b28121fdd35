/** The README's example as a program, and what it must print. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Blobs, named, writeFiles } from '../images/fixtures.js';
import { repository } from './consumer.js';

/** With paths in `dir`, where its image is made; every path it has must be replaced. */
export async function readmeExample(dir: string): Promise<string> {
  const blobs = new Blobs();
  const image = await blobs.image([
    [
      { name: 'etc', type: 'directory' },
      { name: 'etc/motd', text: 'hello' },
    ],
  ]);
  const layout = await writeFiles(
    join(dir, 'layout'),
    blobs.layout([named(image.manifest, 'docker.io/library/small:latest')]),
  );
  const readme = await readFile(join(repository, 'README.md'), 'utf8');
  let code = /^```ts\n([\s\S]*?)^```$/m.exec(readme)?.[1];
  assert.ok(code !== undefined, 'the README has an example in TypeScript');
  for (const [path, other] of [
    ['/var/lib/ebbtide', join(dir, 'root')],
    ['./debian.tar', layout],
  ] as const) {
    assert.ok(code.includes(`'${path}'`), `the example no longer has the path ${path}`);
    code = code.replaceAll(`'${path}'`, JSON.stringify(other));
  }
  return code;
}

export function readmePrinted(printed: string): void {
  // The image goes with its manifest, config and layer; the container keeps the snapshots.
  assert.match(printed, /content: 3/);
  assert.doesNotMatch(printed, /snapshot: \d/);
  assert.match(printed, /lowerdir=|upperdir=/);
}
