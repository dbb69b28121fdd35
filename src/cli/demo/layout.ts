/**
 * Makes an OCI image layout from files at hand, for `ebbtide demo`: two images that share a base layer. Nothing
 * is downloaded; the layers are this package's own installed dependencies.
 */
import { createHash, type Hash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { lstat, mkdir, readdir, readlink, rename, stat, writeFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { createGzip } from 'node:zlib';
import { pack as newPack } from 'tar-stream';
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

/** Names of the images that `makeLayout` puts into a layout. */
export const demoImages = ['demo/web:1.0', 'demo/worker:1.0'] as const;

/**
 * Writes the layout. Each source is a directory; the first is the shared base, the second and third are the
 * upper layers of the two images.
 */
export async function makeLayout(dir: string, sources: readonly [string, string, string]): Promise<void> {
  const blobs = join(dir, 'blobs', 'sha256');
  await mkdir(blobs, { recursive: true });
  const layers: Layer[] = [];
  for (const [i, source] of sources.entries())
    layers.push(await writeLayer(dir, source, `opt/demo/layer-${i}`));
  const manifests: Descriptor[] = [];
  for (const [i, name] of demoImages.entries()) {
    const manifest = await writeImage(dir, [layers[0]!, layers[i + 1]!]);
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

/** One gzip layer with everything below `source`, under the name `prefix` inside the image. */
async function writeLayer(dir: string, source: string, prefix: string): Promise<Layer> {
  const tar = newPack();
  const diff = createHash('sha256');
  const blob = createHash('sha256');
  const temporary = join(dir, `layer-${process.pid}.tmp`);
  const hashing = (hash: Hash): Transform =>
    new Transform({
      transform(chunk: Buffer, _encoding, done) {
        hash.update(chunk);
        done(null, chunk);
      },
    });
  const written = pipeline(
    Readable.from(tar),
    hashing(diff),
    createGzip({ level: 1 }),
    hashing(blob),
    createWriteStream(temporary),
  );
  await Promise.all([addTree(tar, source, prefix), written]);
  const hex = blob.digest('hex');
  await rename(temporary, join(dir, 'blobs', 'sha256', hex));
  const { size } = await stat(join(dir, 'blobs', 'sha256', hex));
  const descriptor = {
    mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
    digest: `sha256:${hex}`,
    size,
  };
  return { descriptor, diffId: `sha256:${diff.digest('hex')}` };
}

async function addTree(tar: ReturnType<typeof newPack>, source: string, prefix: string): Promise<void> {
  const queue = [source];
  for (let path = queue.shift(); path !== undefined; path = queue.shift()) {
    const s = await lstat(path);
    const name = join(prefix, relative(source, path));
    const header = { name, mode: s.mode & 0o7777, mtime: s.mtime, uid: 0, gid: 0 };
    if (s.isDirectory()) {
      tar.entry({ ...header, type: 'directory' });
      for (const entry of (await readdir(path)).sort()) queue.push(join(path, entry));
    } else if (s.isSymbolicLink()) {
      tar.entry({ ...header, type: 'symlink', linkname: await readlink(path) });
    } else if (s.isFile()) {
      await pipeline(createReadStream(path), tar.entry({ ...header, size: s.size }));
    }
  }
  tar.finalize();
}
