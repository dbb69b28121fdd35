/**
 * The error for operations that another program's directories do not support. Called by whatever stands in
 * for a store or a backend there.
 */
import { type EbbtideError, failedPrecondition } from '../errors.js';

/** @param what the operation, as the user would name it */
export const refusal = (what: string, root: string): EbbtideError =>
  failedPrecondition(`${what} is refused: ${root} is another program's, and is only read`, {
    object: root,
    remedy:
      'use ctr, nerdctl, docker or crictl, whichever made it; ebbtide changes stores of its own (--root)',
  });
