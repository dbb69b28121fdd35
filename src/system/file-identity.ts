/**
 * The identity of the file that a name leads to: device and inode, which no other file has while it is open.
 * Called by held-directory.ts, among others before each batch of commits, so a comparison is one system call
 * that fills two numbers.
 */
import { type BigIntStats, fstatSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { loadAddon } from './addon.js';
import { errnoName } from './errno-names.js';
import { errnoOf, fsError } from './system-errors.js';

/** Device and inode. */
export type FileIdentity = BigUint64Array;

/** What a name leads to, compared with an identity. */
export type Place = 'same' | 'other' | 'nothing';

const addon = loadAddon('ebbtide_sys') as
  | { leadsTo?(directory: number, path: string, identity: FileIdentity): number }
  | undefined;

const OTHER = -1;
const CURRENT = -1;

/** Of an open file or directory; `path` is for the error. */
export function identityOf(fd: number, path: string): FileIdentity {
  try {
    return identityIn(fstatSync(fd, { bigint: true }));
  } catch (error) {
    throw fsError('look at', path, error);
  }
}

/** Undefined if the name leads to nothing. */
export function identityAt(path: string): FileIdentity | undefined {
  try {
    return identityIn(statSync(path, { bigint: true }));
  } catch (error) {
    if (isNothing(errnoOf(error))) return undefined;
    throw fsError('look at', path, error);
  }
}

/** An open directory: its descriptor, and a path to it. */
export interface Held {
  readonly fd: number;
  readonly at: string;
}

/** @param below the directory that the path is relative to, unless it is absolute */
export function placeOf(identity: FileIdentity, path: string, below?: Held): Place {
  if (addon?.leadsTo === undefined) {
    const found = identityAt(fullPath(path, below));
    return found === undefined ? 'nothing' : isSame(found, identity) ? 'same' : 'other';
  }
  const result = addon.leadsTo(below?.fd ?? CURRENT, path, identity);
  if (result === 0) return 'same';
  if (result === OTHER) return 'other';
  const code = errnoName(result);
  if (isNothing(code)) return 'nothing';
  throw fsError('look at', fullPath(path, below), Object.assign(new Error(`${code}: stat`), { code }));
}

const fullPath = (path: string, below: Held | undefined): string =>
  below === undefined ? path : join(below.at, path);

export const isSameDevice = (a: FileIdentity, b: FileIdentity): boolean => a[0] === b[0];

export const isSame = (a: FileIdentity, b: FileIdentity): boolean => isSameDevice(a, b) && a[1] === b[1];

/** For another process of this machine, which compares it. */
export const identityText = ([device, inode]: FileIdentity): string => `${device}:${inode}`;

const identityIn = ({ dev, ino }: BigIntStats): FileIdentity => BigUint64Array.of(dev, ino);

const isNothing = (code: string | undefined): boolean =>
  code === 'ENOENT' || code === 'ENOTDIR' || code === 'ELOOP';
