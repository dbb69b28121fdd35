/**
 * A picture for ncdu (https://dev.yorhel.nl/ncdu/jsonfmt): a root is a directory of all it reaches, and a leaf that several reach is one
 * file with a link in each. So ncdu shows the total of `du` for a root, and counts every leaf once. Called by draw.ts.
 */
import { NANOS_PER_SECOND } from '../../model/time.js';
import type { Picture } from '../picture.js';
import { Reached } from '../reached.js';
import type { Branch } from '../tree.js';

export function* ncdu(picture: Picture): Generator<string> {
  const { at, tree } = picture;
  const head = { progname: 'ebbtide', timestamp: Number(at / NANOS_PER_SECOND) };
  const links = linksOf(picture);
  yield `[1,2,${JSON.stringify(head)},\n`;
  yield* directory(picture, tree.host, links, new Reached(picture.view, picture.leaves));
  yield ']\n';
}

/** How many roots reach each leaf. */
function linksOf({ view, leaves, roots }: Picture): Uint32Array {
  const links = new Uint32Array(leaves.count);
  const reached = new Reached(view, leaves);
  for (const { id } of roots)
    reached.of(id, (leaf) => {
      links[leaf] = (links[leaf] ?? 0) + 1;
    });
  return links;
}

function* directory(
  picture: Picture,
  branch: Branch,
  links: Uint32Array,
  reached: Reached,
): Generator<string> {
  const { kind, name, bytes, children } = branch;
  if (kind === 'files') {
    yield `{"name":${JSON.stringify(name)},"asize":${bytes},"dsize":${bytes}}`;
    return;
  }
  yield kind === 'host' ? `[{"name":${JSON.stringify(name)},"dev":1}` : `[{"name":${JSON.stringify(name)}}`;
  for (const child of children) {
    if (isOfShared(child)) continue;
    yield ',\n';
    yield* directory(picture, child, links, reached);
  }
  const texts: string[] = [];
  const add = (leaf: number): void => void texts.push(fileText(picture, leaf, links[leaf] ?? 0));
  const root = branch.root === undefined ? undefined : picture.roots[branch.root];
  if (root !== undefined) reached.of(root.id, add);
  else for (const leaf of picture.tree.order.subarray(branch.first, branch.end)) add(leaf);
  yield texts.join('');
  yield ']';
}

/** What is there is in the roots' directories, as links. */
const isOfShared = ({ kind, name }: Branch): boolean => kind === 'group' && name.startsWith('shared by ');

function fileText({ leaves }: Picture, leaf: number, links: number): string {
  const bytes = leaves.sizeOf(leaf);
  const linked = links > 1 ? `,"ino":${leaf + 1},"hlnkc":true,"nlink":${links}` : '';
  return `,\n{"name":${JSON.stringify(leaves.nameOf(leaf))},"asize":${bytes},"dsize":${bytes}${linked}}`;
}
