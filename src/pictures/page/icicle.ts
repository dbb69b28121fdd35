/**
 * The icicle: a bar for each node, as wide as its bytes, under the one that holds it. For keyboards and screen readers it is a tree:
 * arrows move, Enter enlarges, Escape goes back, Space selects a root.
 */
import { type HierarchyRectangularNode, hierarchy, partition } from 'd3-hierarchy';
import type { PageData, PageNode } from '../view/page-data.js';
import { element } from './elements.js';
import type { Selection } from './selection.js';
import { ageOf, bytes, nameOf } from './texts.js';

/** Height of a bar in pixels; shares of the width below which a bar is hard to see, has no edge, and has no text. */
const BAR_PX = 30;
const SEEN_LEAST = 0.002;
const EDGE_LEAST = 0.003;
const TEXT_LEAST = 0.03;

interface Item {
  readonly node: PageNode;
  readonly index: number;
  readonly children: Item[];
}
type Bar = HierarchyRectangularNode<Item>;

const isWaste = ({ kind }: PageNode): boolean => kind === 'garbage' || kind === 'orphans';

export class Icicle {
  readonly element: HTMLElement;
  readonly #data: PageData;
  readonly #selection: Selection;
  readonly #show: (index: number) => void;
  readonly #bars: Bar[] = [];
  readonly #drawn = new Map<number, HTMLElement>();
  #top: Bar;
  #current: Bar;
  /** What was found, and what is above it. */
  #found: ReadonlySet<number> | undefined;

  /** `show` is called for the node that is looked at. */
  constructor(data: PageData, selection: Selection, show: (index: number) => void) {
    this.#data = data;
    this.#selection = selection;
    this.#show = show;
    const items = data.nodes.map((node, index): Item => ({ node, index, children: [] }));
    for (const item of items) items[item.node.up]?.children.push(item);
    const [host] = items;
    if (host === undefined) throw new Error('the page has no data');
    const tree = hierarchy(host).sum(({ node, children }) => (children.length === 0 ? node.bytes : 0));
    const root = partition<Item>()(tree);
    root.each((bar) => {
      this.#bars[bar.data.index] = bar;
    });
    this.#top = root;
    this.#current = root;
    this.element = element('div', {
      id: 'icicle',
      role: 'tree',
      'aria-multiselectable': 'true',
      'aria-label': 'What holds the disk: width is what a removal frees',
    });
    this.element.addEventListener('keydown', (event) => this.#key(event));
    this.element.addEventListener('click', (event) => this.#pointed(event, false));
    this.element.addEventListener('dblclick', (event) => this.#pointed(event, true));
    selection.onChange(() => this.#mark());
    this.#draw();
  }

  /** All but nodes whose names match, and what is above these, recede; undefined: no search. */
  search(matches: readonly number[] | undefined): void {
    this.#found = matches && new Set(matches.flatMap((index) => this.#upFrom(index)));
    this.#mark();
  }

  #upFrom(index: number): number[] {
    return this.#bars[index]?.ancestors().map(({ data }) => data.index) ?? [];
  }

  /** Goes to a node, and enlarges what is above it where it could not be seen. */
  open(index: number): void {
    const bar = this.#bars[index];
    if (bar === undefined) return;
    const share = (bar.x1 - bar.x0) / (this.#top.x1 - this.#top.x0 || 1);
    if (!this.#drawn.has(index) || share < SEEN_LEAST) this.#enlarge(bar);
    this.#go(bar);
  }

  #draw(): void {
    this.#drawn.clear();
    this.element.replaceChildren();
    const { x0, x1, depth } = this.#top;
    const width = x1 - x0 || 1;
    let lowest = 0;
    for (const bar of this.#visible()) {
      const isAbove = bar.depth < depth;
      const share = isAbove ? 1 : (bar.x1 - bar.x0) / width;
      const made = this.#bar(bar, share);
      made.style.left = `${isAbove ? 0 : ((bar.x0 - x0) / width) * 100}%`;
      made.style.width = `${share * 100}%`;
      made.style.top = `${bar.depth * BAR_PX}px`;
      lowest = Math.max(lowest, bar.depth + 1);
      this.#drawn.set(bar.data.index, made);
    }
    this.element.style.height = `${lowest * BAR_PX}px`;
    this.element.append(...this.#drawn.values());
    if (!this.#drawn.has(this.#current.data.index)) this.#current = this.#top;
    this.#mark();
  }

  /** What is above the enlarged bar, and what is below it and has bytes; each before what is below it. */
  *#visible(): Generator<Bar> {
    yield* this.#top.ancestors().reverse().slice(0, -1);
    const open = [this.#top];
    for (let bar = open.pop(); bar !== undefined; bar = open.pop()) {
      yield bar;
      for (const child of [...(bar.children ?? [])].reverse()) if (child.x1 > child.x0) open.push(child);
    }
  }

  #bar(bar: Bar, share: number): HTMLElement {
    const { node, index } = bar.data;
    const { at, bytes: all } = this.#data;
    const age = node.used === undefined ? '' : ` age-${ageOf(node.used, at)}`;
    const waste = bar.ancestors().find(({ data }) => isWaste(data.node))?.data.node.kind ?? node.kind;
    const named = share > TEXT_LEAST ? ' named' : '';
    const edged = share > EDGE_LEAST ? ' edged' : '';
    const label = `${nameOf(node)}, ${bytes(node.bytes)}`;
    const siblings = bar.parent?.children ?? [bar];
    const made = element('div', {
      class: `bar of-${waste}${age}${edged}${named}`,
      role: 'treeitem',
      'aria-level': bar.depth + 1,
      'aria-setsize': siblings.length,
      'aria-posinset': siblings.indexOf(bar) + 1,
      'aria-expanded': bar.children === undefined ? undefined : 'true',
      'aria-label': label,
      'data-index': index,
      tabindex: -1,
      title: `${label}${all > 0 ? `, ${((node.bytes / all) * 100).toFixed(1)} %` : ''}`,
    });
    if (named !== '') made.append(label);
    return made;
  }

  /** Selected, found, current. */
  #mark(): void {
    for (const [index, made] of this.#drawn) {
      const { root } = this.#data.nodes[index] ?? {};
      const isCurrent = index === this.#current.data.index;
      made.tabIndex = isCurrent ? 0 : -1;
      made.classList.toggle('current', isCurrent);
      made.classList.toggle('selected', root !== undefined && this.#selection.roots.has(root));
      made.classList.toggle('other', this.#found?.has(index) === false);
      made.setAttribute('aria-selected', String(root !== undefined && this.#selection.roots.has(root)));
    }
  }

  #pointed(event: Event, isTwice: boolean): void {
    const at = event.target instanceof Element ? event.target.closest('[data-index]') : null;
    const bar = this.#bars[Number(at?.getAttribute('data-index') ?? -1)];
    if (bar === undefined) return;
    if (isTwice) this.#enlarge(bar);
    this.#go(bar);
  }

  #go(bar: Bar): void {
    this.#current = bar;
    this.#mark();
    this.#drawn.get(bar.data.index)?.focus();
    this.#show(bar.data.index);
  }

  #enlarge(bar: Bar): void {
    this.#top = bar;
    this.#draw();
  }

  #key(event: KeyboardEvent): void {
    const bar = this.#current;
    const isDrawn = (one: Bar | undefined): one is Bar =>
      one !== undefined && this.#drawn.has(one.data.index);
    const beside = (step: number): Bar | undefined => {
      const siblings = bar.parent?.children ?? [];
      return siblings[siblings.indexOf(bar) + step];
    };
    const moves: Readonly<Record<string, () => Bar | null | undefined>> = {
      ArrowDown: () => bar.children?.find(isDrawn),
      ArrowUp: () => bar.parent,
      ArrowRight: () => beside(1),
      ArrowLeft: () => beside(-1),
      Home: () => this.#bars[0],
    };
    const move = moves[event.key];
    if (move !== undefined) {
      const to = move() ?? undefined;
      if (isDrawn(to)) this.#go(to);
    } else if (event.key === 'Enter') {
      this.#enlarge(bar);
      this.#go(bar);
    } else if (event.key === 'Escape') {
      this.#enlarge(this.#top.parent ?? this.#top);
      this.#go(this.#top);
    } else if (event.key === ' ') {
      if (bar.data.node.root !== undefined) this.#selection.toggle(bar.data.node.root);
    } else return;
    event.preventDefault();
  }
}
