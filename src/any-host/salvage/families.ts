/**
 * Branches of a damaged file, whether a tree leads to them or not, with the pages below that are as they say. Called by salvage.ts.
 */
import type { PageScan } from '../../bolt/scan.js';
import type { Steps } from '../../system/turns.js';
import { isBelow } from './walk.js';

export function* familiesIn(
  scan: PageScan,
  visit: (branch: number, children: readonly number[]) => void,
): Steps {
  for (const id of scan.ids) {
    yield;
    const page = scan.page(id);
    if (page?.kind !== 'branch') continue;
    const children = page.children.filter(({ key, page: child }, n) => {
      const below = scan.page(child);
      return below !== undefined && isBelow(below, key, page.children[n + 1]?.key);
    });
    if (children.length > 0)
      visit(
        id,
        children.map((child) => child.page),
      );
  }
}
