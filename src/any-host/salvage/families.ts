/**
 * Branches of a damaged file, whether a tree leads to them or not, with the pages below that are as they say. Called by salvage.ts.
 */
import type { Steps } from '../../system/turns.js';
import type { Pages } from './pages.js';
import { isBelow } from './walk.js';

export function* familiesIn(
  pages: Pages,
  visit: (branch: number, children: readonly number[]) => void,
): Steps {
  for (const id of pages.branches) {
    yield;
    const page = pages.page(id);
    if (page?.kind !== 'branch') continue;
    const children: number[] = [];
    for (const [n, { key, page: child }] of page.children.entries()) {
      yield;
      const below = pages.page(child);
      if (below !== undefined && isBelow(below, key, page.children[n + 1]?.key)) children.push(child);
    }
    if (children.length > 0) visit(id, children);
  }
}
