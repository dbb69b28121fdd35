/** The page of `ebbtide view`: puts its parts together. Runs in a browser, from one file, and loads nothing. */
import type { PageData } from '../view/page-data.js';
import { Details } from './details.js';
import { button, element } from './elements.js';
import { Icicle } from './icicle.js';
import { Roots } from './roots.js';
import { Selection } from './selection.js';
import { ageTexts, bytes } from './texts.js';

const data = JSON.parse(document.getElementById('data')?.textContent ?? '') as PageData;
const selection = new Selection(data);
const details = new Details(data, selection);
const icicle = new Icicle(data, selection, (index) => details.show(index));
const roots = new Roots(data, selection);

function summary(): HTMLElement {
  const { bytes: all, kept, garbage, orphans, isMeasured, at } = data;
  const parts = [`${bytes(all)} in all`, `${bytes(kept)} kept`, `${bytes(garbage)} garbage`];
  if (isMeasured) parts.push(`${bytes(orphans)} orphans`);
  parts.push(isMeasured ? 'as the disk has it' : 'by the records');
  parts.push(new Date(at * 1000).toISOString().replace('.000', ''));
  return element('p', { id: 'summary' }, parts.join(' · '));
}

function legend(): HTMLElement {
  const items = ageTexts.map((text, age) => element('li', { class: `age-${age}` }, text));
  const marks = [
    element('li', { class: 'of-garbage' }, 'garbage'),
    element('li', { class: 'of-orphans' }, 'orphans'),
  ];
  return element('div', { id: 'legend' }, 'last used within', element('ul', {}, ...items, ...marks));
}

function search(): HTMLElement {
  const found = element('output', { id: 'found', 'aria-live': 'polite' });
  const input = element('input', { type: 'search', id: 'search', autocomplete: 'off', spellcheck: 'false' });
  let matches: number[] = [];
  input.addEventListener('input', () => {
    const wanted = input.value.trim().toLowerCase();
    const has = (name: string): boolean => name.toLowerCase().includes(wanted);
    matches = [...data.nodes.keys()].filter((index) => has(data.nodes[index]?.name ?? ''));
    icicle.search(wanted === '' ? undefined : matches);
    roots.filter((root) => has(data.roots[root]?.name ?? '') || has(data.roots[root]?.namespace ?? ''));
    found.textContent = wanted === '' ? '' : `${matches.length} found`;
  });
  input.addEventListener('keydown', ({ key }) => {
    const [first] = matches;
    if (key === 'Enter' && input.value.trim() !== '' && first !== undefined) icicle.open(first);
  });
  document.addEventListener('keydown', (event) => {
    if (event.key !== '/' || event.target instanceof HTMLInputElement) return;
    event.preventDefault();
    input.focus();
  });
  return element(
    'div',
    { role: 'search' },
    element('label', { for: 'search' }, 'Search '),
    input,
    ' ',
    found,
  );
}

function whatIf(): HTMLElement {
  const text = element('output', { id: 'freed', 'aria-live': 'polite' });
  const clear = button('Clear', () => selection.clear());
  const box = element('div', { id: 'what-if' }, text, ' ', clear);
  const show = (): void => {
    const freed = selection.freed();
    clear.hidden = selection.roots.size === 0;
    const what = `${selection.roots.size} ${selection.roots.size === 1 ? 'root' : 'roots'}`;
    const least = data.isAtLeast ? 'at least ' : '';
    if (freed === undefined) text.textContent = 'Too many roots share too much: use ebbtide du --without';
    else if (selection.roots.size === 0)
      text.textContent = 'What if these went? Select roots in the tree or the table.';
    else text.textContent = `Without ${what}: ${least}${bytes(freed)} freed (${freed} bytes)`;
  };
  selection.onChange(show);
  show();
  return box;
}

document
  .getElementById('page')
  ?.append(
    element('h1', {}, `What holds ${data.title}`),
    summary(),
    element('div', { id: 'tools' }, search(), legend()),
    whatIf(),
    icicle.element,
    element(
      'p',
      { id: 'keys' },
      'Arrows move · Enter or double-click enlarges · Escape goes back · Space selects a root · / searches',
    ),
    details.element,
    roots.element,
  );
details.show(0);
