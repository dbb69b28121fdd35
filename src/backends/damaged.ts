/** Blobs whose bytes do not match their record or digest. Created by backends, stores and images. */
import { EbbtideError } from '../errors.js';

/** For blobs that have a record and no bytes. */
export const WRITE_AGAIN = 'import or fetch the image again: that writes the blob';

/** FailedPrecondition: content exists and is damaged; for writers of its digest it counts as absent. */
export class DamagedContent extends EbbtideError {
  constructor(digest: string, text: string) {
    super('FailedPrecondition', `content "${digest}" is damaged: ${text}`, {
      object: digest,
      remedy: 'import or fetch it again; `ebbtide check` lists all that is damaged',
    });
  }
}

/** For a blob whose record says `size` bytes. */
export const wrongSize = (digest: string, found: number, size: number): DamagedContent =>
  new DamagedContent(digest, `its file has ${found} of ${size} bytes`);
