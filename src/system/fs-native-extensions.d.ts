/**
 * The part of the untyped package that is used. Locks belong to the open file description and end with it,
 * also on SIGKILL.
 */
declare module 'fs-native-extensions' {
  /** Length 0: to the end of the file. Returns false when another open file holds a conflicting lock. */
  export function tryLock(
    fd: number,
    offset: number,
    length: number,
    options?: { shared?: boolean },
  ): boolean;
  export function unlock(fd: number, offset: number, length: number): void;
}
