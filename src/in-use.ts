/** The error of opening a store that another process has open for writing. Thrown by the engine; the command reads beside it. */
import { EbbtideError } from './errors.js';

export class StoreInUse extends EbbtideError {
  /** From `lockHolder`. */
  readonly holder: string;

  constructor(dir: string, holder: string) {
    super('Unavailable', `the store in ${dir} is in use by ${holder}`, {
      object: dir,
      remedy: 'close it there, open it read-only, or open another directory',
    });
    this.holder = holder;
  }
}
