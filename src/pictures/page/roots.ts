/** The table of roots: what each frees and keeps; checked ones are selected. */
import type { PageData } from '../view/page-data.js';
import { element } from './elements.js';
import type { Selection } from './selection.js';
import { bytes, day } from './texts.js';

export class Roots {
  readonly element: HTMLElement;
  readonly #rows: { readonly row: HTMLTableRowElement; readonly box: HTMLInputElement }[] = [];
  readonly #none = element('p', { hidden: true }, 'No root has such a name.');

  constructor(data: PageData, selection: Selection) {
    const body = element('tbody');
    for (const [root, { of, namespace, name, frees, keeps, used }] of data.roots.entries()) {
      const box = element('input', { type: 'checkbox', 'aria-label': `what if ${of} ${name} went` });
      box.addEventListener('change', () => selection.toggle(root));
      const row = element(
        'tr',
        {},
        element('td', {}, box),
        element('td', {}, of),
        element('th', { scope: 'row' }, name),
        element('td', {}, namespace),
        element('td', { class: 'number' }, bytes(frees)),
        element('td', { class: 'number' }, bytes(keeps)),
        element('td', {}, used === undefined ? '-' : day(used)),
      );
      this.#rows.push({ row, box });
      body.append(row);
    }
    const head = element('tr', {});
    for (const text of ['What if', 'Kind', 'Root', 'Namespace', 'Frees', 'Keeps', 'Last used']) {
      const isNumber = text === 'Frees' || text === 'Keeps';
      head.append(element('th', { scope: 'col', class: isNumber ? 'number' : undefined }, text));
    }
    const caption =
      data.otherRoots > 0
        ? `The ${data.roots.length} roots that keep most; ${data.otherRoots} more keep less`
        : `${data.roots.length} roots`;
    const table = element('table', {}, element('caption', {}, caption), element('thead', {}, head), body);
    this.element = element('section', { id: 'roots', 'aria-label': 'Roots' }, table, this.#none);
    selection.onChange(() => {
      for (const [root, { row, box }] of this.#rows.entries()) {
        box.checked = selection.roots.has(root);
        row.classList.toggle('selected', box.checked);
      }
    });
  }

  /** Shows these only. */
  filter(isShown: (root: number) => boolean): void {
    let shown = 0;
    for (const [root, { row }] of this.#rows.entries()) {
      row.hidden = !isShown(root);
      if (!row.hidden) shown++;
    }
    this.#none.hidden = shown > 0;
  }
}
