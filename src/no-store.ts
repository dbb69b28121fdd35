/**
 * The error of opening a store that does not exist and must not be created. Thrown by the engines and
 * open.ts.
 */
import { EbbtideError } from './errors.js';

export type NoStorePlace = 'directory' | 'directory without metadata' | 'tree';

const sentences: Readonly<Record<NoStorePlace, (name: string) => [message: string, remedy: string]>> = {
  directory: (dir) => [`no store at ${dir}`, 'name the directory of a store, or make one there'],
  'directory without metadata': (dir) => [
    `no store at ${dir}, but blobs of one: its metadata is lost or not mounted`,
    'mount or restore the metadata directory',
  ],
  tree: (prefix) => [`no tree in etcd under the prefix "${prefix}"`, 'check the prefix'],
};

export class NoStore extends EbbtideError {
  readonly place: NoStorePlace;

  /** @param name the directory, or the prefix of the tree, as the user gave it */
  constructor(place: NoStorePlace, name: string) {
    const [message, remedy] = sentences[place](name);
    super('NotFound', message, { object: name, remedy });
    this.place = place;
  }
}
