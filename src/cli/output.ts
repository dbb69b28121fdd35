/**
 * What a verb prints: a table for people, or one JSON document with `--json`. Standard output carries results
 * only; progress and warnings go to standard error.
 */
import { formatTimestamp } from '../model/time.js';

export interface Column<Row> {
  title: string;
  value: (row: Row) => string | number;
  /** Numbers are aligned right. */
  right?: boolean;
}

export class Output {
  readonly json: boolean;
  readonly #stream: NodeJS.WritableStream;

  constructor(json: boolean, stream: NodeJS.WritableStream = process.stdout) {
    this.json = json;
    this.#stream = stream;
  }

  line(text = ''): void {
    this.#stream.write(`${text}\n`);
  }

  /** What is not a result: for people, on standard error. */
  note(text: string): void {
    process.stderr.write(`ebbtide: ${printable(text)}\n`);
  }

  /** A list: the rows themselves as JSON, a table otherwise. */
  rows<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): void {
    if (this.json) this.document(rows);
    else this.table(rows, columns);
  }

  table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): void {
    const cells = rows.map((row) => columns.map((c) => printable(String(c.value(row)))));
    const widths = columns.map((c, i) => Math.max(c.title.length, ...cells.map((r) => r[i]!.length)));
    const format = (parts: readonly string[]): string =>
      parts
        .map((p, i) => (columns[i]!.right ? p.padStart(widths[i]!) : p.padEnd(widths[i]!)))
        .join('  ')
        .trimEnd();
    this.line(format(columns.map((c) => c.title)));
    for (const row of cells) this.line(format(row));
  }

  /** One object: JSON, or the lines of `text`. */
  object(value: unknown, text: () => void): void {
    if (this.json) this.document(value);
    else text();
  }

  document(value: unknown): void {
    this.line(JSON.stringify(value, jsonValue, 2));
  }
}

/** Names can hold control characters; a terminal must not obey them. */
export function printable(text: string): string {
  return text.replace(
    /[\u0000-\u001f\u007f-\u009f]/g,
    (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`,
  );
}

/** JSON.stringify replacer: instants as RFC 3339, bytes as base64, maps as objects. */
function jsonValue(_key: string, value: unknown): unknown {
  if (typeof value === 'bigint') return formatTimestamp(value);
  if (value instanceof Uint8Array) return Buffer.from(value).toString('base64');
  if (value instanceof Map) return Object.fromEntries(value);
  // A Buffer's own toJSON has run before the replacer sees it.
  if (isBufferJson(value)) return Buffer.from(value.data).toString('base64');
  return value;
}

function isBufferJson(value: unknown): value is { type: 'Buffer'; data: number[] } {
  return (
    typeof value === 'object' &&
    value !== null &&
    'type' in value &&
    value.type === 'Buffer' &&
    'data' in value
  );
}

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

/** Milliseconds as people read them. */
export function duration(ms: number): string {
  if (ms < 1) return `${(ms * 1000).toFixed(0)} µs`;
  return ms < 1000 ? `${ms.toFixed(1)} ms` : `${(ms / 1000).toFixed(2)} s`;
}

export const shortTime = (t: bigint): string => formatTimestamp(t - (t % 1_000_000_000n));

export const labelText = (labels: Readonly<Record<string, string>>): string =>
  Object.entries(labels)
    .map(([k, v]) => `${k}=${v}`)
    .join(',');
