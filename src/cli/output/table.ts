/** Tables for people, fitted to a width if one is given. */

export interface TableColumn {
  readonly title: string;
  /** Numbers are aligned right and never cut. */
  readonly right?: boolean | undefined;
  /** Never cut, because a part of it (of a time, say) is of no use. */
  readonly whole?: boolean | undefined;
  /** Cut before other columns, and left out if that is not enough. */
  readonly minor?: boolean | undefined;
}

const GAP = 2;
/** A cell is not cut below this. */
const LEAST = 8;
/** Twelve digits are enough to identify a digest. */
const DIGEST = /\b(sha(?:256|384|512):[0-9a-f]{12})[0-9a-f]{52,}/g;

/**
 * Shortens digests first (every verb accepts short ones); then cuts minor columns, then leaves them out; then
 * cuts the widest of the others; and finally leaves out minor numbers.
 */
export function tableLines(
  columns: readonly TableColumn[],
  cells: readonly (readonly string[])[],
  width = Number.POSITIVE_INFINITY,
): string[] {
  const titles = columns.map(({ title }) => title);
  let rows = [titles, ...cells];
  if (sumOf(widthsOf(rows)) > width) rows = rows.map((row) => row.map(shortDigests));
  const widths = widthsOf(rows);
  const kept = columns.map((_, i) => i);
  const over = (): number => sumOf(kept.map((i) => widths[i]!)) - width;
  cut(
    widths,
    kept.filter((i) => columns[i]!.minor && canBeCut(columns[i]!)),
    over,
  );
  const leaveOut = (isDue: (column: TableColumn) => boolean): void => {
    for (let at = kept.length - 1; over() > 0 && at >= 0; at--)
      if (isDue(columns[kept[at]!]!)) kept.splice(at, 1);
  };
  leaveOut(({ minor, right }) => minor === true && right !== true);
  cut(
    widths,
    kept.filter((i) => canBeCut(columns[i]!)),
    over,
  );
  leaveOut(({ minor }) => minor === true);
  return rows.map((row) =>
    kept
      .map((i) => fitted(row[i]!, widths[i]!, columns[i]!.right === true))
      .join(' '.repeat(GAP))
      .trimEnd(),
  );
}

const canBeCut = ({ right, whole }: TableColumn): boolean => right !== true && whole !== true;

export const shortDigests = (text: string): string => text.replace(DIGEST, `$1`);

const widthsOf = (rows: readonly (readonly string[])[]): number[] =>
  (rows[0] ?? []).map((_, i) => rows.reduce((most, row) => Math.max(most, row[i]!.length), 0));

const sumOf = (widths: readonly number[]): number =>
  widths.reduce((sum, width) => sum + width, GAP * (widths.length - 1));

/** Narrows these columns, always the widest one, until the lines fit or nothing is left to cut. */
function cut(widths: number[], which: readonly number[], over: () => number): void {
  while (over() > 0) {
    const [widest, next] = which.filter((i) => widths[i]! > LEAST).sort((a, b) => widths[b]! - widths[a]!);
    if (widest === undefined) return;
    const least = Math.max(LEAST, Math.min(widths[widest]! - 1, next === undefined ? LEAST : widths[next]!));
    widths[widest] = Math.max(widths[widest]! - over(), least);
  }
}

/** Names are cut in the middle, because both ends matter. */
function fitted(text: string, width: number, right: boolean): string {
  if (text.length > width) {
    const head = DIGEST_AHEAD.test(text) ? width - 1 : Math.ceil((width - 1) / 2);
    return `${text.slice(0, head)}…${text.slice(text.length - (width - 1 - head))}`.slice(0, width);
  }
  return right ? text.padStart(width) : text.padEnd(width);
}

const DIGEST_AHEAD = /^sha(256|384|512):/;
