/** Names for an image in the store, as a transfer's destination says. Used by the transfers that make images. */
import type { CallContext } from '../../context.js';
import type { DB } from '../../db.js';
import { isAlreadyExists, isNotFound, notFound } from '../../errors.js';
import type { StringMap } from '../../model/records.js';
import type { Image } from '../../stores/images.js';
import type { ImageStoreMessage } from './messages.js';

/** The names that are whole: of an image, or of the index of an archive. */
export function wholeNames(store: ImageStoreMessage, digest: string): string[] {
  const others = store.extraReferences.filter(({ isPrefix }) => !isPrefix);
  return [
    ...(store.name === '' ? [] : [store.name]),
    ...others.map(({ name, addDigest }) => (addDigest ? `${name}@${digest}` : name)),
  ];
}

/** As `wholeNames`; NotFound without one. */
export function namesIn(store: ImageStoreMessage, digest: string): string[] {
  const names = wholeNames(store, digest);
  if (names.length === 0) throw notFound('no image name found');
  return names;
}

/** Makes the images, or gives those that have the names another target and other labels. */
export async function saveImages(
  { images }: Pick<DB, 'images'>,
  ctx: CallContext,
  names: readonly string[],
  target: Image['target'],
  labels: StringMap,
): Promise<Image[]> {
  const saved: Image[] = [];
  for (const name of names) saved.push(await saveImage(images, ctx, { name, target, labels }));
  return saved;
}

/** Attempts while somebody else makes and removes it. */
const ATTEMPTS_MAX = 10;

async function saveImage(
  images: DB['images'],
  ctx: CallContext,
  image: Pick<Image, 'name' | 'target' | 'labels'>,
): Promise<Image> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await images.create(ctx, image);
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
    }
    try {
      return await images.update(ctx, image);
    } catch (error) {
      if (!isNotFound(error) || attempt === ATTEMPTS_MAX) throw error;
    }
  }
}
