/**
 * A picture for speedscope (https://github.com/jlfwong/speedscope): a sample is a leaf with what it is in, its weight the bytes. Called by draw.ts.
 */
import type { Picture } from '../picture.js';
import type { Branch } from '../tree.js';

/** Samples written at once. */
const SAMPLES_AT_ONCE = 64;

/** A frame is a branch or a leaf: branches come first, leaves have the number of their branches added. */
export function* speedscope(picture: Picture): Generator<string> {
  const { tree, leaves } = picture;
  const branches = [...stacksOf(tree.host, [])];
  const title = JSON.stringify(`what holds ${tree.host.name}`);
  yield `{"$schema":"https://www.speedscope.app/file-format-schema.json","exporter":"ebbtide","name":${title},"activeProfileIndex":0,"shared":{"frames":[`;
  let separator = '';
  for (const { branch } of branches) {
    yield `${separator}{"name":${JSON.stringify(nameOf(picture, branch))}}`;
    separator = ',\n';
  }
  for (let leaf = 0; leaf < leaves.count; leaf++)
    yield `,\n{"name":${JSON.stringify(`${leaves.kindOf(leaf)} ${leaves.nameOf(leaf)}`)}}`;
  yield `]},"profiles":[{"type":"sampled","name":${title},"unit":"bytes","startValue":0,"endValue":${tree.host.bytes},"samples":[`;
  yield* samples(
    picture,
    branches,
    (stack, leaf) => `[${stack}${leaf === undefined ? '' : `,${branches.length + leaf}`}]`,
  );
  yield '],"weights":[';
  yield* samples(picture, branches, (_, leaf, branch) =>
    String(leaf === undefined ? branch.bytes : leaves.sizeOf(leaf)),
  );
  yield ']}]}\n';
}

interface Stack {
  readonly branch: Branch;
  /** Frames from the host to the branch. */
  readonly stack: readonly number[];
}

function* stacksOf(host: Branch, above: readonly number[]): Generator<Stack> {
  const open: { branch: Branch; above: readonly number[] }[] = [{ branch: host, above }];
  let frame = 0;
  for (let next = open.pop(); next !== undefined; next = open.pop()) {
    const stack = [...next.above, frame++];
    yield { branch: next.branch, stack };
    for (const child of [...next.branch.children].reverse()) open.push({ branch: child, above: stack });
  }
}

function nameOf({ roots }: Picture, { kind, name, root }: Branch): string {
  const of = root === undefined ? undefined : roots[root]?.kind;
  return of === undefined ? name : `${of} ${name}${kind === 'root' ? '' : ` (${kind})`}`;
}

/** What `text` says of each leaf in its branch, and of files that are no leaves, in the same order every time. */
function* samples(
  { tree }: Picture,
  branches: readonly Stack[],
  text: (stack: string, leaf: number | undefined, branch: Branch) => string,
): Generator<string> {
  let separator = '';
  for (const { branch, stack } of branches) {
    const above = stack.join(',');
    if (branch.kind === 'files') {
      yield separator + text(above, undefined, branch);
      separator = ',\n';
    }
    for (let at = branch.first; at < branch.end; at += SAMPLES_AT_ONCE) {
      const some = tree.order.subarray(at, Math.min(at + SAMPLES_AT_ONCE, branch.end));
      yield separator + Array.from(some, (leaf) => text(above, leaf, branch)).join(',\n');
      separator = ',\n';
    }
  }
}
