/** A picture as our own JSON: the tree, every leaf once. Called by draw.ts; docs/pictures.md describes it. */
import { formatTimestamp } from '../../model/time.js';
import type { Picture } from '../picture.js';
import type { Branch } from '../tree.js';

/** Leaves written at once. */
const LEAVES_AT_ONCE = 64;

export function* json(picture: Picture): Generator<string> {
  const { at, disk, tree } = picture;
  const head = {
    format: 'ebbtide-graph',
    version: 1,
    createdAt: formatTimestamp(at),
    bytes: tree.host.bytes,
    ...(disk && { disk }),
  };
  yield `${JSON.stringify(head).slice(0, -1)},"tree":`;
  yield* branchText(picture, tree.host);
  yield '}\n';
}

function* branchText(picture: Picture, branch: Branch): Generator<string> {
  const { kind, name, bytes, children } = branch;
  const root = branch.root === undefined ? undefined : picture.roots[branch.root];
  yield `{"kind":${JSON.stringify(root?.kind ?? kind)},"name":${JSON.stringify(name)},"bytes":${bytes}${lastUse(picture, root?.id)},"children":[`;
  let separator = '';
  for (const child of children) {
    yield separator;
    yield* branchText(picture, child);
    separator = ',\n';
  }
  const { leaves, support } = picture;
  for (let at = branch.first; at < branch.end; at += LEAVES_AT_ONCE) {
    let text = separator;
    for (const leaf of picture.tree.order.subarray(at, Math.min(at + LEAVES_AT_ONCE, branch.end))) {
      text += `${text === separator ? '' : ',\n'}{"kind":"${leaves.kindOf(leaf)}","name":${JSON.stringify(leaves.nameOf(leaf))},"bytes":${leaves.sizeOf(leaf)},"roots":${support.countOf(leaf)}}`;
    }
    yield text;
    separator = ',\n';
  }
  yield ']}';
}

function lastUse({ lastUse: times }: Picture, id: number | undefined): string {
  const time = id === undefined ? undefined : times.get(id);
  return time === undefined ? '' : `,"lastUsedAt":"${formatTimestamp(time)}"`;
}
