/** The progress line at any width: the amount first, then as much of the rest as fits. */
import { bytes, printable } from './output.js';

export interface ProgressView {
  what: string;
  done: number;
  /** 0: unknown. */
  total: number;
  unit: 'bytes' | 'items' | 'seconds';
  /** Bytes per second. */
  rate?: number;
  /** The current item, of how many. */
  item?: number;
  items?: number | undefined;
}

const GAP = '  ';
const BAR_LEAST = 6;
const BAR_MOST = 30;
/** A shorter part of a name is of no use. */
const WHAT_LEAST = 10;

/** Always shorter than `width`, so that a terminal does not wrap it. */
export function progressLine(view: ProgressView, width: number): string {
  const { done, total, rate, item, items } = view;
  const room = Math.max(0, width - 1);
  const unknown = total <= 0;
  const percent = unknown ? 0 : Math.min(100, Math.floor((100 * done) / total));
  let line = amount(view);
  const add = (text: string): void => {
    if (line.length + GAP.length + text.length <= room) line += GAP + text;
  };
  const tail = [
    ...(rate === undefined ? [] : [`${bytes(Math.round(rate))}/s`]),
    ...(item === undefined ? [] : [items === undefined ? `no. ${item}` : `${item} of ${items}`]),
  ];
  const taken = tail.reduce((sum, text) => sum + GAP.length + text.length, line.length);
  if (!unknown) {
    const percentText = `${String(percent).padStart(3)} %`;
    const forBar = room - taken - GAP.length - '[] '.length - percentText.length;
    // A third of what is left, so that there is room for the name.
    const length = Math.min(BAR_MOST, Math.max(BAR_LEAST, Math.floor(forBar / 3)));
    add(length <= forBar ? `[${bar(percent, length)}] ${percentText}` : percentText);
  }
  for (const text of tail) add(text);
  const left = room - line.length - GAP.length;
  if (left >= WHAT_LEAST) add(cut(printable(view.what), left));
  return cut(line, room);
}

function amount({ done, total, unit }: ProgressView): string {
  const text = (n: number): string =>
    unit === 'bytes' ? bytes(n) : unit === 'seconds' ? `${n} s` : String(n);
  return total > 0 ? `${text(done)} of ${text(total)}` : text(done);
}

function bar(percent: number, length: number): string {
  const full = Math.floor((length * percent) / 100);
  return '#'.repeat(full) + '-'.repeat(length - full);
}

const cut = (text: string, length: number): string =>
  text.length <= length ? text : `${text.slice(0, Math.max(0, length - 1))}…`.slice(0, length);
