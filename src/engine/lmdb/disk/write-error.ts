/** What a failing write of a store's files means to the caller: always Unavailable, for the same write may work later. */
import { EbbtideError, unavailable } from '../../../errors.js';
import { errnoOf, remedyOf, textOf } from '../../../system/system-errors.js';

/** What LMDB reports where the system says otherwise. */
const texts: Readonly<Record<string, string>> = {
  EIO: 'input/output error, or no space left on the device',
  ENOSPC: 'no space left on the device',
  EDQUOT: 'the quota is used up',
};

export function writeError(path: string, cause: unknown): EbbtideError {
  if (cause instanceof EbbtideError) return cause;
  const code = errnoOf(cause) ?? '';
  const text = texts[code] ?? textOf(cause);
  return unavailable(`cannot write to ${path}: ${text}`, { object: path, remedy: writeRemedy(code), cause });
}

export const writeRemedy = (code = 'EIO'): string =>
  code === 'EIO'
    ? 'free disk space, or check the disk (the kernel log has the details), and try again'
    : (remedyOf(code) ?? 'check the disk: the kernel log has the details');
