/** The part of the untyped package that is used. Locks belong to the open file and go with it, also on SIGKILL. */
declare module 'fs-native-extensions' {
  /** False when another open file holds a conflicting lock. */
  export function tryLock(fd: number, options?: { shared?: boolean }): boolean;
}
