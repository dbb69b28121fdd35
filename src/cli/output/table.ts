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
  let kept = columns.map((column, i) =>
    measured(column, [column.title, ...cells.map((row) => row[i] ?? '')]),
  );
  const over = (): number => sumOf(kept) - width;
  if (over() > 0) kept = kept.map(({ column, texts }) => measured(column, texts.map(shortDigests)));
  cut(
    kept.filter(({ column }) => column.minor && canBeCut(column)),
    over,
  );
  const leaveOut = (isDue: (column: TableColumn) => boolean): void => {
    for (const one of kept.toReversed())
      if (over() > 0 && isDue(one.column)) kept = kept.filter((other) => other !== one);
  };
  leaveOut(({ minor, right }) => minor === true && right !== true);
  cut(
    kept.filter(({ column }) => canBeCut(column)),
    over,
  );
  leaveOut(({ minor }) => minor === true);
  const lines = kept.map(({ column, texts, width }) =>
    texts.map((text) => fitted(text, width, column.right === true)),
  );
  return ['', ...cells].map((_, n) =>
    lines
      .map((texts) => texts[n])
      .join(' '.repeat(GAP))
      .trimEnd(),
  );
}

/** A column as it is printed, its title first. */
interface Measured {
  readonly column: TableColumn;
  readonly texts: readonly string[];
  width: number;
}

const measured = (column: TableColumn, texts: readonly string[]): Measured => ({
  column,
  texts,
  width: texts.reduce((most, text) => Math.max(most, text.length), 0),
});

const canBeCut = ({ right, whole }: TableColumn): boolean => right !== true && whole !== true;

export const shortDigests = (text: string): string => text.replace(DIGEST, `$1`);

const sumOf = (columns: readonly Measured[]): number =>
  columns.reduce((sum, { width }) => sum + width, GAP * (columns.length - 1));

/** Narrows these columns, always the widest one, until the lines fit or nothing is left to cut. */
function cut(columns: readonly Measured[], over: () => number): void {
  while (over() > 0) {
    const [widest, next] = columns.filter(({ width }) => width > LEAST).sort((a, b) => b.width - a.width);
    if (widest === undefined) return;
    const least = Math.max(LEAST, Math.min(widest.width - 1, next?.width ?? LEAST));
    widest.width = Math.max(widest.width - over(), least);
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
