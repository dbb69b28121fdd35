/** A root of containerd with one image, written without containerd. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { BoltWriter } from '../../src/bolt/writer.js';
import { digestOf } from '../../src/model/digest.js';
import { encodeTime, encodeVarint } from '../../src/model/wire.js';

export type Fields = { [name: string]: string | Uint8Array | Fields };

function write(writer: BoltWriter, fields: Fields): void {
  for (const [name, value] of Object.entries(fields).sort(([a], [b]) => (a < b ? -1 : 1))) {
    const key = Buffer.from(name);
    if (typeof value === 'string' || value instanceof Uint8Array) writer.put(key, Buffer.from(value));
    else {
      writer.openBucket(key);
      write(writer, value);
      writer.closeBucket();
    }
  }
}

/** A bbolt file with these buckets. */
export async function writeFields(path: string, fields: Fields): Promise<void> {
  await using writer = await BoltWriter.create(path);
  write(writer, fields);
  await writer.finish();
}

/** Returns the digest of the image's only blob. */
export async function makeRoot(root: string, image: string): Promise<string> {
  const bytes = Buffer.from('{"schemaVersion":2}');
  const digest = digestOf(bytes);
  const blobs = join(root, 'io.containerd.content.v1.content', 'blobs', 'sha256');
  const metadata = join(root, 'io.containerd.metadata.v1.bolt');
  for (const made of [blobs, metadata]) mkdirSync(made, { recursive: true });
  writeFileSync(join(blobs, digest.slice(7)), bytes);
  const at = { createdat: encodeTime(0n), updatedat: encodeTime(0n) };
  const size = encodeVarint(bytes.length);
  await writeFields(join(metadata, 'meta.db'), {
    v1: {
      version: encodeVarint(3),
      default: {
        images: { [image]: { ...at, target: { digest, mediatype: 'application/x', size } } },
        content: { blob: { [digest]: { ...at, size } } },
      },
    },
  });
  return digest;
}
