/** What the node that is looked at is, and why it is held: the references from a root to it. */
import type { PageData, PageNode } from '../view/page-data.js';
import { button, element } from './elements.js';
import type { Selection } from './selection.js';
import { bytes, day, keepersText, nameOf } from './texts.js';

/** Roots that are named. */
const NAMED_MAX = 20;

const meanings: Readonly<Partial<Record<PageNode['kind'], string>>> = {
  garbage: 'Nothing keeps this: the next collection removes it.',
  orphans: 'No record names these files: ebbtide gc --full removes them.',
  files: 'Not of any object.',
  rest: 'Each too small to be shown by itself.',
};

export class Details {
  readonly element = element('section', { id: 'details', 'aria-live': 'polite', 'aria-label': 'Details' });
  readonly #data: PageData;
  readonly #selection: Selection;
  #shown = 0;

  constructor(data: PageData, selection: Selection) {
    this.#data = data;
    this.#selection = selection;
    selection.onChange(() => this.show(this.#shown));
  }

  show(index: number): void {
    const node = this.#data.nodes[index];
    if (node === undefined) return;
    this.#shown = index;
    const { used, way, keepers, root } = node;
    const facts = [`${bytes(node.bytes)} (${node.bytes} bytes)`];
    if (used !== undefined) facts.push(`last used ${day(used)}`);
    if (keepers !== undefined) facts.push(keepersText(keepers));
    this.element.replaceChildren(
      element('h2', {}, nameOf(node)),
      element('p', {}, facts.join(' · ')),
      ...this.#meaning(node),
      ...(root === undefined ? [] : [this.#rootButton(root)]),
      ...(root === undefined && node.kind === 'root' ? [element('p', {}, this.#unlisted())] : []),
      ...(way === undefined ? [] : this.#way(way)),
      ...this.#keepers(node),
    );
  }

  #meaning(node: PageNode): HTMLElement[] {
    let at: PageNode | undefined = node;
    while (at !== undefined && meanings[at.kind] === undefined) at = this.#data.nodes[at.up];
    const text = at && meanings[at.kind];
    return text === undefined ? [] : [element('p', {}, text)];
  }

  #rootButton(root: number): HTMLElement {
    const isSelected = this.#selection.roots.has(root);
    return button(isSelected ? 'Leave it' : 'What if this went', () => this.#selection.toggle(root), {
      'aria-pressed': isSelected,
    });
  }

  /** Of a root that cannot be selected. */
  #unlisted(): string {
    const { length } = this.#data.roots;
    return `This is what goes with it alone. Sets are computed of the ${length} roots that keep most.`;
  }

  #way(way: number): HTMLElement[] {
    const steps = this.#data.ways[way] ?? [];
    const list = element('ol', { class: 'way' });
    for (const [via, object] of steps)
      list.append(element('li', {}, object, ' ', element('span', { class: 'via' }, via)));
    return [element('h3', {}, 'Why it is held'), list];
  }

  #keepers({ set, keepers = 0 }: PageNode): HTMLElement[] {
    const [, ...roots] = (set === undefined ? undefined : this.#data.sets?.[set]) ?? [0];
    if (keepers < 2 || roots.length === 0) return [];
    const list = element('ul', {});
    for (const root of roots.slice(0, NAMED_MAX)) {
      const { of = '', name = '', namespace = '' } = this.#data.roots[root] ?? {};
      list.append(element('li', {}, `${of} ${name} in ${namespace}`));
    }
    if (roots.length > NAMED_MAX) list.append(element('li', {}, `and ${roots.length - NAMED_MAX} more`));
    return [element('h3', {}, 'It goes when all of these go'), list];
  }
}
