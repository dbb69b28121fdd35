/** Blobs whose bytes are not what their record or digest promises. Made by backends, stores and images. */
import { EbbtideError } from '../errors.js';

/** FailedPrecondition: content is there, and damaged; for writers of its digest it counts as absent. */
export class DamagedContent extends EbbtideError {
  constructor(digest: string, text: string, cause?: unknown) {
    super('FailedPrecondition', `content "${digest}" is damaged: ${text}`, {
      object: digest,
      remedy: 'import or fetch it again; `ebbtide check` lists all that is damaged',
      cause,
    });
  }
}

/** Of a blob that a record says has `size` bytes. */
export const wrongSize = (digest: string, found: number, size: number): DamagedContent =>
  new DamagedContent(digest, `its file has ${found} of ${size} bytes`);
