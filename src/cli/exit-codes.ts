/** Exit codes of the `ebbtide` command: one per error kind, so that scripts can tell them apart (docs/cli.md). */
import type { ErrorKind } from '../errors.js';

export const exitCodes: Readonly<Record<ErrorKind, number>> = {
  Unknown: 1,
  InvalidArgument: 2,
  NotFound: 3,
  AlreadyExists: 4,
  FailedPrecondition: 5,
  Unavailable: 6,
  NotImplemented: 7,
  DeadlineExceeded: 8,
  /** As a shell reports a process that SIGINT ended. */
  Canceled: 130,
};
