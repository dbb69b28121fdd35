/**
 * The order in which a collection removes its candidates: referrers before what they refer to. Used by the
 * TypeScript graph core; native/order.cc is its twin and must give the same order.
 *
 * Level order: first, ascending, the candidates no other candidate refers to; then, ascending, those whose last
 * referrer went with the level before; and so on. Members of a cycle, and what only they lead to, come last.
 */

/**
 * @param ids candidates, ascending
 * @param targets calls back with the target of every edge of a node
 */
export function removalOrder(
  ids: Uint32Array,
  targets: (id: number, visit: (to: number) => void) => void,
): Uint32Array {
  const referrers = new Uint32Array(ids.length);
  for (const id of ids) {
    targets(id, (to) => {
      const i = indexOf(ids, to);
      if (i >= 0) referrers[i]!++;
    });
  }

  const order = new Uint32Array(ids.length);
  let n = 0;
  const placed = new Uint8Array(ids.length);
  let level: number[] = [];
  for (let i = 0; i < ids.length; i++) if (referrers[i] === 0) level.push(i);
  while (level.length > 0) {
    const next: number[] = [];
    for (const i of level) {
      placed[i] = 1;
      order[n++] = ids[i]!;
      targets(ids[i]!, (to) => {
        const j = indexOf(ids, to);
        if (j >= 0 && --referrers[j]! === 0) next.push(j);
      });
    }
    level = next.sort((a, b) => a - b);
  }
  for (let i = 0; i < ids.length; i++) if (placed[i] === 0) order[n++] = ids[i]!;
  return order;
}

/** Place of an id among ascending ones, by halving: a map of a million ids would cost more than the sorting. */
function indexOf(ids: Uint32Array, id: number): number {
  let low = 0;
  let high = ids.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ids[middle]! < id) low = middle + 1;
    else high = middle;
  }
  return ids[low] === id ? low : -1;
}
