/**
 * Which mounts of a list the mount manager performs, and what it makes of them first: the transformers that stand in the
 * types (`format/mkdir/overlay`), as in containerd 2.2. Called by the mount manager. Pure, but for the directories of `mkdir/`,
 * which are made through what is passed in.
 */
import type { Mount } from '../../backends/contract.js';
import { invalidArgument, notImplemented } from '../../errors.js';

/** A mount without the transformers that stood in its type. */
export interface PlannedMount {
  readonly mount: Mount;
  readonly transforms: readonly string[];
}

/** What an activation comes to: these are mounted, the rest is returned to the caller. */
export interface ActivationPlan {
  readonly perform: readonly PlannedMount[];
  readonly rest: readonly PlannedMount[];
}

/** More are refused: containerd numbers them with a byte. */
const MOUNTS_MAX = 255;

/**
 * Everything up to the last mount with a transformer; all of a temporary activation. NotImplemented when there is nothing to
 * perform, so that the caller mounts them itself, and for a transformer that is not supported.
 */
export function planActivation(mounts: readonly Mount[], temporary: boolean): ActivationPlan {
  if (mounts.length > MOUNTS_MAX)
    throw invalidArgument(`${mounts.length} mounts: ${MOUNTS_MAX} are activated at once`);
  for (const mount of mounts) checkWords(mount);
  const planned = mounts.map(plannedOf);
  const last = planned.findLastIndex(({ transforms }) => transforms.length > 0);
  const first = temporary ? mounts.length : last;
  if (first < 0 || mounts.length === 0) {
    throw notImplemented('there is nothing to activate: no mount has a transformer', {
      remedy: 'mount them yourself, or activate them as temporary',
    });
  }
  return { perform: planned.slice(0, first), rest: planned.slice(first) };
}

/** A mount is words for the kernel, which takes a page of options. */
const MOUNT_BYTES_MAX = 64 * 1024;

function checkWords({ type, source, target = '', options }: Mount): void {
  const words = [type, source, target, ...options];
  if (words.some((word) => word.includes('\0')))
    throw invalidArgument('the words of a mount must not contain NUL');
  const bytes = words.reduce((sum, word) => sum + Buffer.byteLength(word), 0);
  if (bytes > MOUNT_BYTES_MAX)
    throw invalidArgument(`a mount of ${bytes} bytes: ${MOUNT_BYTES_MAX} is the most`);
}

/** Unknown transformers stay in the type, which then is none that can be mounted. */
function plannedOf(mount: Mount): PlannedMount {
  const words = mount.type.split('/');
  const transforms: string[] = [];
  while (words.length > 1 && (words[0] === 'format' || words[0] === 'mkdir' || words[0] === 'mkfs')) {
    transforms.push(words.shift() ?? '');
  }
  if (transforms.includes('mkfs')) {
    throw notImplemented(`the transformer "mkfs/" of a mount of type "${mount.type}" is not supported`, {
      object: mount.source,
      remedy: 'make the file system before',
    });
  }
  return { mount: { ...mount, type: words.join('/') }, transforms };
}

/** A mount of the activation that is mounted already. */
export interface MountedBefore extends Mount {
  readonly mountPoint: string;
}

/** Makes a directory: of an activation's mounted ones the mount, from 0, and names below it. */
export type MakeDirectory = (
  index: number,
  below: string,
  how: { mode: number; owner?: readonly [uid: number, gid: number] | undefined },
) => void;

/** The mount that is meant, once those before it are mounted. InvalidArgument; as `MakeDirectory`. */
export function transformed(
  { mount, transforms }: PlannedMount,
  before: readonly MountedBefore[],
  makeDirectory: MakeDirectory,
): Mount {
  let result = mount;
  for (const name of transforms) {
    result = name === 'format' ? formatted(result, before) : withDirectories(result, before, makeDirectory);
  }
  return result;
}

// ------------------------------------------------------------------------------------------------------------ format/

/** The actions of Go's templates that containerd documents. */
const ACTION = /\{\{-?\s*(source|target|mount|overlay)\s+(-?\d{1,9})(?:\s+(-?\d{1,9}))?\s*-?\}\}/g;

function formatted(mount: Mount, before: readonly MountedBefore[]): Mount {
  const format = (text: string): string => filledIn(text, before);
  return {
    ...mount,
    source: format(mount.source),
    ...(mount.target !== undefined && { target: format(mount.target) }),
    options: mount.options.map(format),
  };
}

function filledIn(text: string, before: readonly MountedBefore[]): string {
  if (!text.includes('{{')) return text;
  // What an action puts in is not looked at again.
  if (text.replace(ACTION, '').includes('{{')) throw badTemplate(text);
  return text.replace(ACTION, (_, name: string, first: string, second: string | undefined) => {
    if ((name === 'overlay') !== (second !== undefined)) throw badTemplate(text);
    const at = (index: number): MountedBefore => {
      const found = before[index];
      if (found !== undefined) return found;
      throw invalidArgument(`"${text}" names mount ${index}: ${before.length} are mounted before it`, {
        object: text,
      });
    };
    if (name === 'overlay')
      return range(Number(first), Number(second), before.length, text)
        .map((i) => at(i).mountPoint)
        .join(':');
    const mount = at(Number(first));
    if (name === 'mount') return mount.mountPoint;
    return (name === 'source' ? mount.source : mount.target) ?? '';
  });
}

/** From one index to the other, in either direction. */
function range(start: number, end: number, length: number, text: string): number[] {
  if ([start, end].some((index) => index < 0 || index >= length)) {
    throw invalidArgument(`"${text}" names mounts ${start} to ${end}: ${length} are mounted before it`, {
      object: text,
    });
  }
  const step = start <= end ? 1 : -1;
  return Array.from({ length: Math.abs(end - start) + 1 }, (_, i) => start + i * step);
}

const badTemplate = (text: string) =>
  invalidArgument(`the template "${text}" is not supported`, {
    object: text,
    remedy: 'use {{ source N }}, {{ target N }}, {{ mount N }} and {{ overlay N M }}',
  });

// ------------------------------------------------------------------------------------------------------------- mkdir/

const MKDIR = 'X-containerd.mkdir.';

/** `X-containerd.mkdir.path=<directory>[:<mode>[:<uid>:<gid>]]`: the directory is made, and the option goes. */
function withDirectories(
  mount: Mount,
  before: readonly MountedBefore[],
  makeDirectory: MakeDirectory,
): Mount {
  const options: string[] = [];
  for (const option of mount.options) {
    if (!option.startsWith(MKDIR)) {
      options.push(option);
      continue;
    }
    const { path, mode, owner } = parsed(option);
    const index = before.findLastIndex(({ mountPoint }) => path.startsWith(`${mountPoint}/`));
    const below = path.slice((before[index]?.mountPoint.length ?? 0) + 1);
    if (index < 0) {
      throw notImplemented(`${path} is not made: it is in no mount of the activation`, {
        object: path,
        remedy: 'name it by {{ mount N }}, or make it before',
      });
    }
    if (below.split('/').some((name) => name === '' || name === '.' || name === '..'))
      throw badOption(option);
    makeDirectory(index, below, { mode, owner });
  }
  return { ...mount, options };
}

function parsed(option: string): {
  path: string;
  mode: number;
  owner?: readonly [number, number] | undefined;
} {
  const match = /^path=([^:]+)(?::([0-7]{1,4})(?::(\d{1,9}):(\d{1,9}))?)?$/.exec(option.slice(MKDIR.length));
  if (match === null) throw badOption(option);
  const [, path = '', octal = '700', uid, gid] = match;
  const mode = Number.parseInt(octal, 8);
  if (mode > 0o777) throw badOption(option);
  return { path, mode, owner: uid === undefined ? undefined : [Number(uid), Number(gid)] };
}

const badOption = (option: string) =>
  invalidArgument(`the option "${option}" is not valid`, {
    object: option,
    remedy: `write ${MKDIR}path=<directory>[:<mode>[:<uid>:<gid>]]`,
  });
