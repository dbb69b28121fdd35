/**
 * What a verb prints: tables and text for people, or one JSON document with `--json`. Standard output has
 * results only; progress and notices go to standard error.
 */
import { invalidArgument, present } from '../../errors.js';
import { jsonValue } from '../../model/json.js';
import { formatTimestamp } from '../../model/time.js';
import { folded } from './fold.js';
import { printable } from './printable.js';
import { rowFormat } from './row-format.js';
import { type TableColumn, tableLines } from './table.js';

export { printable } from './printable.js';

export interface Column<Row> extends TableColumn {
  value: (row: Row) => string | number;
  /** The column that `--quiet` prints; the first if none is marked. */
  isName?: boolean;
}

/** The destination of results. */
export interface OutputSink {
  /** Width of a line in characters; undefined if the output is not a terminal. */
  readonly columns: number | undefined;
  write(text: string): void;
}

export interface OutputOptions {
  json?: boolean | undefined;
  /** Lists only: names, one per line. */
  quiet?: boolean | undefined;
  /** Lists only: `table`, `json`, or a template. */
  format?: string | undefined;
}

export class Output {
  readonly json: boolean;
  /** Lists are read by programs: rows without a heading or a summary. */
  readonly isRowsOnly: boolean;
  readonly #quiet: boolean;
  readonly #template: string | undefined;
  readonly #format: ((rows: readonly object[]) => string[]) | undefined;
  readonly #sink: OutputSink;

  /** InvalidArgument for options that exclude each other, and for a format that is not valid. */
  constructor({ json = false, quiet = false, format }: OutputOptions, sink: OutputSink) {
    if (Number(json) + Number(quiet) + Number(format !== undefined) > 1)
      throw invalidArgument('only one of --json, --quiet and --format can be given');
    this.json = json || format === 'json';
    this.#quiet = quiet;
    this.#template = format === 'json' || format === 'table' ? undefined : format;
    this.#format = this.#template === undefined ? undefined : rowFormat(this.#template);
    this.isRowsOnly = quiet || this.#format !== undefined;
    this.#sink = sink;
  }

  /**
   * Whether a list shows a field; a costly one need not be computed otherwise. For fields that are not part
   * of the name.
   */
  shows(field: string): boolean {
    return !this.#quiet && new RegExp(`\\{\\s*${field}`).test(this.#template ?? `{${field}`);
  }

  /** For people: folded at the terminal's width. */
  line(text = ''): void {
    const { columns } = this.#sink;
    const lines = columns === undefined || this.json || this.isRowsOnly ? [text] : folded(text, columns);
    this.#sink.write(`${lines.join('\n')}\n`);
  }

  /** Verbatim. */
  text(text: string): void {
    this.#sink.write(text);
  }

  /** Prints something that is not a result, for people, on standard error. */
  notice(text: string): void {
    process.stderr.write(`ebbtide: ${printable(text)}\n`);
  }

  /**
   * Prints a list: as JSON, as names, by a format, or as a table. Rows of several namespaces get a column for
   * it.
   */
  rows<Row extends object>(rows: readonly Row[], given: readonly Column<Row>[]): void {
    const isTitled = given.some(({ title }) => title === NAMESPACE);
    const columns = !isTitled && rows.some(namespaceOf) ? [namespaceColumn, ...given] : given;
    if (this.json) this.document(rows);
    else if (this.#quiet) {
      const name = columns.find(({ isName }) => isName) ?? present(given[0], 'a column');
      for (const row of rows) this.line(printable(String(name.value(row))));
    } else if (this.#format !== undefined) for (const line of this.#format(rows)) this.line(line);
    else this.table(rows, columns);
  }

  table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): void {
    const cells = rows.map((row) => columns.map((c) => printable(String(c.value(row)))));
    for (const line of tableLines(columns, cells, this.#sink.columns)) this.text(`${line}\n`);
  }

  /** Prints one object: JSON, or the lines of `text`. */
  object(value: unknown, text: () => void): void {
    if (this.json) this.document(value);
    else text();
  }

  document(value: unknown): void {
    this.line(JSON.stringify(value, jsonValue, 2));
  }
}

const NAMESPACE = 'NAMESPACE';
const namespaceOf = (row: object): string =>
  'namespace' in row && typeof row.namespace === 'string' ? row.namespace : '';
const namespaceColumn: Column<object> = { title: NAMESPACE, value: namespaceOf };

/** 1536 → "1.5 KiB". */
export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = n;
  let unit = 0;
  while (Math.abs(value) >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** A duration for people, from milliseconds. */
export function duration(ms: number): string {
  if (ms < 1) return `${(ms * 1000).toFixed(0)} µs`;
  return ms < 1000 ? `${ms.toFixed(1)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

export const shortTime = (t: bigint): string => formatTimestamp(t - (t % 1_000_000_000n));

export const labelText = (labels: Readonly<Record<string, string>>): string =>
  Object.entries(labels)
    .map(([k, v]) => `${k}=${v}`)
    .join(',');
