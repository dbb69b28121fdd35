/** What is not done to another program's directories. Called by whatever stands there for a store or a backend. */
import { type EbbtideError, failedPrecondition } from '../errors.js';

/** `what`: the operation, as the user would name it. */
export const refusal = (what: string, root: string): EbbtideError =>
  failedPrecondition(`${what} is refused: ${root} is another program's, and is only read`, {
    object: root,
    remedy:
      'use ctr, nerdctl, docker or crictl, whichever made it; ebbtide changes stores of its own (--root)',
  });
