/** Images made for tests, in every form an import takes. */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import type { DB } from '../../src/db.js';
import { digestOf } from '../../src/model/digest.js';
import { type Item, tarOf } from '../archive/support.js';

export interface Desc {
  mediaType: string;
  digest: string;
  size: number;
  annotations?: Record<string, string>;
  platform?: { os: string; architecture: string; variant?: string };
}

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
export const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json';
export const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';
export const REF_NAME = 'org.opencontainers.image.ref.name';
export const IMAGE_NAME = 'io.containerd.image.name';

export interface MadeImage {
  manifest: Desc;
  config: Desc;
  layers: Desc[];
  diffIds: string[];
}

/** Blobs by digest, and what was built of them. */
export class Blobs {
  readonly all = new Map<string, Buffer>();

  add(mediaType: string, bytes: Buffer | object): Desc {
    const data = Buffer.isBuffer(bytes) ? bytes : Buffer.from(JSON.stringify(bytes));
    const digest = digestOf(data);
    this.all.set(digest, data);
    return { mediaType, digest, size: data.length };
  }

  /** An image of these layers, gzipped unless `plain`. */
  async image(
    layers: Item[][],
    options: { platform?: { os: string; architecture: string; variant?: string }; plain?: boolean } = {},
  ): Promise<MadeImage> {
    const { platform = { os: 'linux', architecture: 'amd64' }, plain = false } = options;
    const diffIds: string[] = [];
    const descs: Desc[] = [];
    for (const items of layers) {
      const tar = await tarOf(items);
      diffIds.push(digestOf(tar));
      descs.push(plain ? this.add(OCI_LAYER, tar) : this.add(`${OCI_LAYER}+gzip`, gzipSync(tar)));
    }
    const config = this.add(OCI_CONFIG, { ...platform, rootfs: { type: 'layers', diff_ids: diffIds } });
    const manifest = this.add(OCI_MANIFEST, {
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config,
      layers: descs,
    });
    return { manifest, config, layers: descs, diffIds };
  }

  index(manifests: Desc[]): Desc {
    return this.add(OCI_INDEX, { schemaVersion: 2, mediaType: OCI_INDEX, manifests });
  }

  /** Files of an OCI layout with these entries. */
  layout(entries: Desc[], without: readonly string[] = []): Map<string, Buffer> {
    const files = new Map<string, Buffer>();
    files.set('oci-layout', Buffer.from('{"imageLayoutVersion":"1.0.0"}'));
    for (const [digest, bytes] of this.all) {
      if (!without.includes(digest)) files.set(`blobs/${digest.replace(':', '/')}`, bytes);
    }
    files.set('index.json', Buffer.from(JSON.stringify({ schemaVersion: 2, manifests: entries })));
    return files;
  }
}

export const named = (desc: Desc, name: string): Desc => ({
  ...desc,
  annotations: { ...desc.annotations, [REF_NAME]: name },
});

export async function writeFiles(dir: string, files: ReadonlyMap<string, Buffer>): Promise<string> {
  for (const [path, bytes] of files) {
    await mkdir(join(dir, path, '..'), { recursive: true });
    await writeFile(join(dir, path), bytes);
  }
  return dir;
}

export const tarOfFiles = (files: ReadonlyMap<string, Buffer>): Promise<Buffer> =>
  tarOf([...files].map(([name, text]) => ({ name, text })));

/** What `docker save` wrote for years: a directory for each layer, symlinks for shared ones. */
export async function dockerSave(
  blobs: Blobs,
  image: MadeImage,
  tags: string[] | null,
  plainLayers: readonly Buffer[],
): Promise<Buffer> {
  const items: Item[] = [];
  const paths: string[] = [];
  for (const [i, layer] of plainLayers.entries()) {
    const id = String(i).repeat(64);
    const path = `${id}/layer.tar`;
    items.push(
      { name: id, type: 'directory' },
      { name: `${id}/VERSION`, text: '1.0' },
      { name: `${id}/json`, text: '{}' },
    );
    const same = plainLayers.findIndex((other) => other.equals(layer));
    if (same < i)
      items.push({ name: path, type: 'symlink', linkname: `../${String(same).repeat(64)}/layer.tar` });
    else items.push({ name: path, text: layer });
    paths.push(path);
  }
  const config = `${image.config.digest.slice(7)}.json`;
  items.push({ name: config, text: blobs.all.get(image.config.digest)! });
  items.push({
    name: 'manifest.json',
    text: JSON.stringify([{ Config: config, RepoTags: tags, Layers: paths }]),
  });
  items.push({ name: 'repositories', text: '{}' });
  return tarOf(items);
}

/** Where the tests of imports work. */
export const ctx = { namespace: 'images' };

/** What the content store has. */
export async function digests(db: DB): Promise<string[]> {
  const found: string[] = [];
  await db.content.walk(ctx, (info) => void found.push(info.digest));
  return found.sort();
}

/** Imports must leave no lease, and what they made must survive a collection (or none of it). */
export async function leavesNothing(db: DB): Promise<void> {
  assert.deepEqual(await db.leases.list(ctx), []);
  await db.garbageCollect();
}
