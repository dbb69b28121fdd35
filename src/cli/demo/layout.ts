/**
 * Creates an OCI image layout from local files, for `ebbtide demo`: two images that share a base layer.
 * Nothing is downloaded; the layers are this package's own installed dependencies.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { mkdir, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { diffLayer } from '../../backends/archive/diff.js';
import { digestOf } from '../../model/digest.js';

interface Descriptor {
  mediaType: string;
  digest: string;
  size: number;
  annotations?: Record<string, string>;
}

interface Layer {
  descriptor: Descriptor;
  diffId: string;
}

/**
 * Writes the layout. Each source is a directory; the first is the shared base, the second and third are the
 * upper layers of the two images.
 */
export async function makeLayout(
  dir: string,
  [base, web, worker]: readonly [string, string, string],
): Promise<void> {
  const blobs = join(dir, 'blobs', 'sha256');
  await mkdir(blobs, { recursive: true });
  const shared = await writeLayer(dir, base);
  const manifests: Descriptor[] = [];
  for (const [name, source] of Object.entries({ 'demo/web:1.0': web, 'demo/worker:1.0': worker })) {
    const manifest = await writeImage(dir, [shared, await writeLayer(dir, source)]);
    manifests.push({ ...manifest, annotations: { 'io.containerd.image.name': name } });
  }
  await writeFile(join(dir, 'oci-layout'), JSON.stringify({ imageLayoutVersion: '1.0.0' }));
  await writeFile(
    join(dir, 'index.json'),
    JSON.stringify({ schemaVersion: 2, mediaType: 'application/vnd.oci.image.index.v1+json', manifests }),
  );
}

async function writeImage(dir: string, layers: readonly Layer[]): Promise<Descriptor> {
  const config = await writeJson(dir, 'application/vnd.oci.image.config.v1+json', {
    architecture: { x64: 'amd64', arm64: 'arm64' }[process.arch as string] ?? process.arch,
    os: 'linux',
    config: { Cmd: ['/bin/true'] },
    rootfs: { type: 'layers', diff_ids: layers.map((l) => l.diffId) },
  });
  return writeJson(dir, 'application/vnd.oci.image.manifest.v1+json', {
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config,
    layers: layers.map((l) => l.descriptor),
  });
}

async function writeJson(dir: string, mediaType: string, value: unknown): Promise<Descriptor> {
  const body = Buffer.from(JSON.stringify(value));
  const digest = digestOf(body);
  await writeFile(join(dir, 'blobs', 'sha256', digest.slice(7)), body);
  return { mediaType, digest, size: body.length };
}

/** One gzip layer with everything below `source`. */
async function writeLayer(dir: string, source: string): Promise<Layer> {
  const temporary = join(dir, `layer-${process.pid}.tmp`);
  const gzip = createGzip({ level: 1 });
  const blob = createHash('sha256');
  const hashing = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      blob.update(chunk);
      done(null, chunk);
    },
  });
  const written = pipeline(gzip, hashing, createWriteStream(temporary));
  const mounts = [{ type: 'bind', source, options: ['rbind', 'ro'] }];
  const { digest: diffId } = await diffLayer([], mounts, async (bytes) => {
    if (!gzip.write(bytes)) await once(gzip, 'drain');
  });
  gzip.end();
  await written;
  const hex = blob.digest('hex');
  const path = join(dir, 'blobs', 'sha256', hex);
  await rename(temporary, path);
  const mediaType = 'application/vnd.oci.image.layer.v1.tar+gzip';
  return { descriptor: { mediaType, digest: `sha256:${hex}`, size: (await stat(path)).size }, diffId };
}
