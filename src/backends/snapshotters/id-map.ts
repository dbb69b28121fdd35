/**
 * User and group id mappings of a snapshot (`container:host:size[,…]`, decimal), from its labels. Called by
 * the overlay snapshotter; pure.
 */
import { invalidArgument } from '../../errors.js';

const MAX_ID = 2 ** 32 - 1;
const RANGE = /^(\d{1,10}):(\d{1,10}):(\d{1,10})$/;

/** The host id of the container's id 0; InvalidArgument when the mapping is malformed or has none. */
export function mappedRoot(mapping: string): number {
  let root: number | undefined;
  for (const range of mapping.split(',')) {
    const [, container, host, size] = RANGE.exec(range) ?? [];
    if (container === undefined || host === undefined || size === undefined) throw malformed(mapping, range);
    const [from, to, count] = [Number(container), Number(host), Number(size)];
    if (count === 0 || from + count - 1 > MAX_ID || to + count - 1 > MAX_ID) throw malformed(mapping, range);
    if (from === 0) root ??= to;
  }
  if (root !== undefined) return root;
  throw invalidArgument(`id mapping "${mapping}" does not map id 0`, {
    object: mapping,
    remedy: 'map the root of the container, for example 0:100000:65536',
  });
}

const malformed = (mapping: string, range: string): Error =>
  invalidArgument(`invalid range "${range}" in id mapping "${mapping}"`, {
    object: mapping,
    remedy: 'write ranges as container:host:size, separated by commas',
  });
