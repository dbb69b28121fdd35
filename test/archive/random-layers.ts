/** Layers at random over few names, so that they meet: files, directories, deletions, links. */
import fc from 'fast-check';
import type { Item } from './support.js';

const dir = (name: string): Item => ({ name, type: 'directory' });

const names = ['a', 'b', 'c'];
const paths = [...names, ...names.flatMap((n) => names.map((m) => `${n}/${m}`)), 'a/b/a', 'a/b/b', 'b/a/a'];
const path = fc.constantFrom(...paths);
export const parentOf = (p: string): string => p.slice(0, p.lastIndexOf('/') + 1);
export const leafOf = (p: string): string => p.slice(p.lastIndexOf('/') + 1);

export const plainItem: fc.Arbitrary<Item> = fc.oneof(
  { weight: 4, arbitrary: path.chain((name) => fc.nat(99).map((n) => ({ name, text: `${n}` }))) },
  { weight: 3, arbitrary: path.map((name) => dir(name)) },
  { weight: 3, arbitrary: path.map((p) => ({ name: `${parentOf(p)}.wh.${leafOf(p)}` })) },
  { weight: 2, arbitrary: path.map((p) => ({ name: `${p}/.wh..wh..opq` })) },
  {
    weight: 1,
    arbitrary: fc.tuple(path, path).map(([name, linkname]): Item => ({ name, type: 'link', linkname })),
  },
);
export const anyItem: fc.Arbitrary<Item> = fc.oneof(
  { weight: 5, arbitrary: plainItem },
  {
    weight: 1,
    arbitrary: fc
      .tuple(path, fc.constantFrom('/a', 'b', '..', '../c', '/b/a', 'a/b'))
      .map(([name, linkname]): Item => ({ name, type: 'symlink', linkname })),
  },
);
export const layersOf = (item: fc.Arbitrary<Item>) =>
  fc.array(fc.array(item, { maxLength: 7 }), { minLength: 1, maxLength: 4 });
