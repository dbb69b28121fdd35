/** Words of a mount's option list and their flags of mount(2). Used by sys.ts. Pure. */

/** The MS_… flags of mount(2). */
export const MountFlag = {
  rdonly: 1,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  synchronous: 16,
  remount: 32,
  mandlock: 64,
  dirsync: 128,
  nosymfollow: 256,
  noatime: 1024,
  nodiratime: 2048,
  bind: 4096,
  move: 8192,
  rec: 16384,
  silent: 32768,
  unbindable: 1 << 17,
  private: 1 << 18,
  slave: 1 << 19,
  shared: 1 << 20,
  relatime: 1 << 21,
  strictatime: 1 << 24,
} as const;

/** A word sets its bits, or clears those that an earlier word set. */
interface Word {
  bits: number;
  clear?: boolean;
}

const words: Readonly<Record<string, Word>> = {
  async: { bits: MountFlag.synchronous, clear: true },
  atime: { bits: MountFlag.noatime, clear: true },
  bind: { bits: MountFlag.bind },
  defaults: { bits: 0 },
  dev: { bits: MountFlag.nodev, clear: true },
  diratime: { bits: MountFlag.nodiratime, clear: true },
  dirsync: { bits: MountFlag.dirsync },
  exec: { bits: MountFlag.noexec, clear: true },
  mand: { bits: MountFlag.mandlock },
  noatime: { bits: MountFlag.noatime },
  nodev: { bits: MountFlag.nodev },
  nodiratime: { bits: MountFlag.nodiratime },
  noexec: { bits: MountFlag.noexec },
  nomand: { bits: MountFlag.mandlock, clear: true },
  norelatime: { bits: MountFlag.relatime, clear: true },
  nostrictatime: { bits: MountFlag.strictatime, clear: true },
  nosuid: { bits: MountFlag.nosuid },
  nosymfollow: { bits: MountFlag.nosymfollow },
  rbind: { bits: MountFlag.bind | MountFlag.rec },
  relatime: { bits: MountFlag.relatime },
  remount: { bits: MountFlag.remount },
  ro: { bits: MountFlag.rdonly },
  rw: { bits: MountFlag.rdonly, clear: true },
  silent: { bits: MountFlag.silent },
  strictatime: { bits: MountFlag.strictatime },
  suid: { bits: MountFlag.nosuid, clear: true },
  sync: { bits: MountFlag.synchronous },
};

const recursivePropagations = {
  rprivate: MountFlag.private | MountFlag.rec,
  rslave: MountFlag.slave | MountFlag.rec,
  rshared: MountFlag.shared | MountFlag.rec,
  runbindable: MountFlag.unbindable | MountFlag.rec,
};

const propagations: Readonly<Record<string, number>> = {
  private: MountFlag.private,
  shared: MountFlag.shared,
  slave: MountFlag.slave,
  unbindable: MountFlag.unbindable,
  ...recursivePropagations,
};

export interface ParsedMountOptions {
  flags: number;
  /** The remaining words: the file system's own options, comma-separated. */
  data: string;
  /** Flags for a second mount call; 0 for none. */
  propagation: number;
}

/**
 * Later words override earlier ones. A read-only bind needs a second call with `remount`
 * (`mountWithOptions`).
 */
export function parseMountOptions(options: readonly string[]): ParsedMountOptions {
  let flags = 0;
  let propagation = 0;
  const data: string[] = [];
  for (const option of options) {
    const word = Object.hasOwn(words, option) ? words[option] : undefined;
    const spread = Object.hasOwn(propagations, option) ? propagations[option] : undefined;
    if (word !== undefined) flags = word.clear ? flags & ~word.bits : flags | word.bits;
    else if (spread !== undefined) propagation = spread;
    else if (option !== '') data.push(option);
  }
  return { flags, data: data.join(','), propagation };
}

/** The words of mount(8) for these flags. */
export function mountFlagNames(flags: number): string[] {
  const names: string[] = [];
  let rest = flags;
  const take = (name: string, bits: number): void => {
    if (bits === 0 || (rest & bits) !== bits) return;
    names.push(name);
    rest &= ~bits;
  };
  for (const [name, bits] of Object.entries(recursivePropagations)) take(name, bits);
  take('rbind', MountFlag.bind | MountFlag.rec);
  for (const [name, word] of Object.entries({ ...words })) if (!word.clear) take(name, word.bits);
  for (const [name, bits] of Object.entries(propagations)) take(name, bits);
  return names;
}
