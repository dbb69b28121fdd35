/**
 * Branches of a damaged file, whether a tree leads to them or not, with the pages below that are as they say. Called by salvage.ts.
 *
 * bbolt writes the first key of a page into the branch above, and changes both together: a page that was given out again begins with
 * another key.
 */
import type { PageScan } from '../../bolt/scan.js';

export function* familiesIn(scan: PageScan): Generator<[number, number[]]> {
  for (const id of scan.ids) {
    const page = scan.page(id);
    if (page?.kind !== 'branch') continue;
    const children: number[] = [];
    for (const [n, { key, page: child }] of page.children.entries()) {
      const below = scan.page(child);
      const keys = below?.kind === 'leaf' ? below.entries : below?.children;
      const to = page.children[n + 1]?.key;
      const [first] = keys ?? [];
      const last = keys?.at(-1);
      if (first?.key === key && last !== undefined && (to === undefined || last.key < to))
        children.push(child);
    }
    if (children.length > 0) yield [id, children];
  }
}
