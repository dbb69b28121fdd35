/** A content directory and what its tests do with it. */
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { type LocalContent, openContent } from '../../src/backends/content/store.js';
import { type Logged, recordingLog, tempDir } from './temp.js';

export interface Fixture extends Logged {
  root: string;
  content: LocalContent;
}

export async function fixture(t: TestContext): Promise<Fixture> {
  const root = join(await tempDir(t), 'content');
  const logged = recordingLog();
  const content = await openContent(root, { log: logged.log });
  t.after(() => content.close());
  return { root, content, ...logged };
}

export const ingestOf = (root: string, ref: string): string =>
  join(root, 'ingest', createHash('sha256').update(ref).digest('hex'));

export async function addBlob(content: LocalContent, bytes: Uint8Array, ref = 'add'): Promise<string> {
  const writer = await content.writer(ref, {});
  await writer.write(bytes);
  const digest = writer.digest();
  await writer.commit(bytes.length, digest);
  return digest;
}

export async function readBlob(content: LocalContent, digest: string): Promise<Buffer> {
  await using reader = await content.readerAt(digest);
  const chunks: Uint8Array[] = [];
  for await (const chunk of reader.stream()) chunks.push(chunk);
  return Buffer.concat(chunks);
}

export async function digests(content: LocalContent): Promise<string[]> {
  const found: string[] = [];
  await content.walk((info) => void found.push(info.digest));
  return found.sort();
}
