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
  const indexOf = new Map<number, number>();
  for (let i = 0; i < ids.length; i++) indexOf.set(ids[i]!, i);
  const referrers = new Uint32Array(ids.length);
  for (const id of ids) {
    targets(id, (to) => {
      const i = indexOf.get(to);
      if (i !== undefined) referrers[i]!++;
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
        const j = indexOf.get(to);
        if (j !== undefined && --referrers[j]! === 0) next.push(j);
      });
    }
    level = next.sort((a, b) => a - b);
  }
  for (let i = 0; i < ids.length; i++) if (placed[i] === 0) order[n++] = ids[i]!;
  return order;
}
