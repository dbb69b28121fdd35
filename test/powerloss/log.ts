/** Reads the recorder's log (recorder.c says what is in it). */
import assert from 'node:assert/strict';

export type DiskEvent =
  | { kind: 'open'; fd: number; path: string; created: boolean; truncated: boolean }
  | { kind: 'close'; fd: number }
  /** `through`: on disk when the call returned. */
  | { kind: 'write'; fd: number; offset: number; bytes: Buffer; through: boolean }
  | { kind: 'truncate'; fd: number; size: number }
  | { kind: 'syncBegin'; fd: number }
  | { kind: 'syncEnd'; fd: number; done: boolean }
  | { kind: 'rename' | 'link'; from: string; to: string }
  | { kind: 'unlink' | 'mkdir' | 'rmdir'; path: string }
  | { kind: 'mark'; text: string }
  | { kind: 'sharedMap'; fd: number }
  | { kind: 'unsupported'; fd: number; what: string };

const HEAD_BYTES = 24;
const kinds = [
  '',
  'open',
  'close',
  'write',
  'truncate',
  'syncBegin',
  'syncEnd',
  'rename',
  'link',
  'unlink',
  'mkdir',
  'rmdir',
  'mark',
  'sharedMap',
  'unsupported',
  'symlink',
] as const;

export function readLog(log: Buffer): DiskEvent[] {
  const events: DiskEvent[] = [];
  for (let at = 0; at < log.length; ) {
    const first = log.readUInt32LE(at + 16);
    const second = log.readUInt32LE(at + 20);
    const start = at + HEAD_BYTES;
    events.push(decode(log.subarray(at, start), log.subarray(start, start + first + second), first));
    at = start + first + second;
  }
  return events;
}

function decode(head: Buffer, bytes: Buffer, split: number): DiskEvent {
  const kind = kinds[head.readUInt8(0)];
  const flags = head.readUInt8(1);
  const fd = head.readInt32LE(4);
  const offset = Number(head.readBigUInt64LE(8));
  const text = bytes.toString('utf8', 0, split);
  switch (kind) {
    case 'open':
      return { kind, fd, path: text, created: (flags & 1) !== 0, truncated: (flags & 4) !== 0 };
    case 'write':
      return { kind, fd, offset, bytes, through: (flags & 2) !== 0 };
    case 'truncate':
      return { kind, fd, size: offset };
    case 'syncEnd':
      return { kind, fd, done: flags === 1 };
    case 'rename':
    case 'link':
      return { kind, from: text, to: bytes.toString('utf8', split) };
    case 'unlink':
    case 'mkdir':
    case 'rmdir':
      return { kind, path: text };
    case 'mark':
      return { kind, text };
    case 'close':
    case 'syncBegin':
    case 'sharedMap':
      return { kind, fd };
    case 'unsupported':
      return { kind, fd, what: text };
    default:
      return assert.fail(`the log has a record of kind ${kind ?? head.readUInt8(0)}`);
  }
}
