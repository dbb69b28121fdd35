/** Exit codes of the `ebbtide` command: one per error kind, so that scripts can distinguish them (docs/cli.md). */
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
  ResourceExhausted: 9,
  /** The code by which shells report a process that SIGINT ended. */
  Canceled: 130,
};

/** For the manual page and the documentation. */
export const exitMeanings: Readonly<Record<ErrorKind, string>> = {
  Unknown: 'unclassified failure',
  InvalidArgument: 'invalid argument or usage',
  NotFound: 'not found',
  AlreadyExists: 'already exists',
  FailedPrecondition:
    'failed precondition (snapshot has children, namespace not empty, damaged store or blob); check and doctor --check found damage; backup and restore lack something',
  Unavailable:
    'unavailable (the store is in use by another process, the disk or the output is full, the root has been replaced)',
  NotImplemented: 'not implemented',
  DeadlineExceeded: 'deadline exceeded',
  ResourceExhausted: 'resource exhausted (no memory for the graph)',
  Canceled: 'interrupted',
};
