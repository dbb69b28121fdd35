/**
 * An OCI image layout in a directory. Blobs are opened on demand, so only what images need is read. File
 * names come from validated digests, never from the index as such.
 */
import { constants, type FileHandle, open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { EbbtideError, invalidArgument } from '../errors.js';
import { parseDigest } from '../model/digest.js';
import { fsError, isAbsent } from '../system/system-errors.js';
import { type Index, MAX_DOCUMENT_BYTES, MAX_IMAGES, parseIndex, parseObject } from './documents.js';
import { refusal } from './other-forms.js';
import { type ImageSource, INDEX_FILE, LAYOUT_FILE, LAYOUT_VERSION, type OpenBlob } from './source.js';

/** InvalidArgument: the directory has no layout, or one of an unknown version. */
export async function openLayout(dir: string): Promise<ImageSource> {
  checkLayoutFile(await readSmall(dir, LAYOUT_FILE), dir);
  const document = await readSmall(dir, INDEX_FILE);
  const index = parseLayoutIndex(document, join(dir, INDEX_FILE));
  return { index, document, open: (digest) => openBlob(dir, digest) };
}

export function checkLayoutFile(bytes: Uint8Array, where: string): void {
  const { imageLayoutVersion: version } = parseObject(bytes, `${LAYOUT_FILE} of ${where}`);
  if (version === LAYOUT_VERSION) return;
  throw invalidArgument(`${where} is an OCI layout of the unknown version ${JSON.stringify(version)}`, {
    object: where,
    remedy: `write it as version ${LAYOUT_VERSION}`,
  });
}

export const parseLayoutIndex = (bytes: Uint8Array, name: string): Index =>
  parseIndex(parseObject(bytes, name), name, MAX_IMAGES);

async function readSmall(dir: string, name: string): Promise<Buffer> {
  const path = join(dir, name);
  const opened = await openFile(path);
  if (opened === undefined) {
    throw refusal(
      dir,
      await readable(dir, () => readdir(dir)),
      `${dir} is not an OCI image layout: it has no ${name}`,
    );
  }
  const { file, size } = opened;
  try {
    if (size > MAX_DOCUMENT_BYTES) {
      throw invalidArgument(`${path} is larger than ${MAX_DOCUMENT_BYTES} bytes`, { object: path });
    }
    return await readable(path, () => file.readFile());
  } finally {
    await file.close();
  }
}

async function openBlob(dir: string, digest: string): Promise<OpenBlob | undefined> {
  const { algorithm, hex } = parseDigest(digest);
  const path = join(dir, 'blobs', algorithm, hex);
  const opened = await openFile(path);
  if (opened === undefined) return undefined;
  const { file, size } = opened;
  const source = {
    read: async (buffer: Uint8Array, position: number) =>
      (await readable(path, () => file.read(buffer, 0, buffer.length, position))).bytesRead,
  };
  return { source, size, close: () => file.close() };
}

/** Undefined when it does not exist. A pipe or device in its place is an error, not a wait. */
async function openFile(path: string): Promise<{ file: FileHandle; size: number } | undefined> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stats = await file.stat();
    if (!stats.isFile()) throw invalidArgument(`${path} is not a regular file`, { object: path });
    return { file, size: stats.size };
  } catch (error) {
    await file?.close();
    if (isAbsent(error)) return undefined;
    throw error instanceof EbbtideError ? error : fsError('read', path, error);
  }
}

async function readable<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw fsError('read', path, error);
  }
}
