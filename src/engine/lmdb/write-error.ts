/** What a failing write of a store's files means to the caller. */
import { EbbtideError, unavailable } from '../../errors.js';

/** Numbers of the system's errors, whose texts LMDB mixes up. */
const systemErrors: Readonly<Record<string, string>> = {
  5: 'input/output error, or no space left on the device',
  28: 'no space left on the device',
  122: 'the quota is used up',
  ENOSPC: 'no space left on the device',
  EDQUOT: 'the quota is used up',
};

export function writeError(path: string, cause: unknown): EbbtideError {
  if (cause instanceof EbbtideError) return cause;
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : '';
  const text = systemErrors[code] ?? (cause instanceof Error ? cause.message : String(cause));
  return unavailable(`cannot write to ${path}: ${text}`, {
    object: path,
    remedy: 'make room on the disk (the kernel log tells of other troubles), then try again',
    cause,
  });
}
