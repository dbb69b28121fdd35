/** `--format '{name} {digest}'`: lines made of the fields that `--json` prints. */

import { invalidArgument } from '../../errors.js';
import { jsonValue } from '../../model/json.js';
import { formatTimestamp } from '../../model/time.js';
import { printable } from './printable.js';

type Part = { readonly text: string } | { readonly field: string };

/**
 * InvalidArgument if the template is not valid. The returned function throws it for a field that no row has.
 */
export function rowFormat(template: string): (rows: readonly object[]) => string[] {
  const parts = partsOf(template);
  return (rows) => {
    for (const part of parts) if ('field' in part) checkField(part.field, rows);
    return rows.map((row) =>
      parts
        .map((part) => ('text' in part ? part.text : printable(textOf(valueAt(row, part.field)))))
        .join(''),
    );
  };
}

/** `{{` and `}}` stand for braces, `\t` and `\n` for tab and newline. */
function partsOf(template: string): Part[] {
  const parts: Part[] = [];
  const token = /\{\{|\}\}|\\[tn]|\{([^{}]+)\}|([^{}\\]+|\\)/gy;
  while (token.lastIndex < template.length) {
    const at = token.lastIndex;
    const match = token.exec(template);
    if (match === null) {
      throw invalidArgument(`the format "${template}" has an unmatched brace at ${at}`, {
        object: template,
        remedy: "write table, json, or fields of --json in braces: '{name} {target.digest}'",
      });
    }
    const [all, field] = match;
    parts.push(field === undefined ? { text: plain[all] ?? all } : { field: field.trim() });
  }
  return parts;
}

const plain: Readonly<Record<string, string>> = { '{{': '{', '}}': '}', '\\t': '\t', '\\n': '\n' };

function checkField(field: string, rows: readonly object[]): void {
  const [name = ''] = field.split('.');
  if (rows.length === 0 || rows.some((row) => name in row)) return;
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  throw invalidArgument(`unknown field "${name}"`, {
    object: field,
    remedy: `there are: ${names.join(', ')}`,
  });
}

/** Keys may contain dots, as those of labels do. */
function valueAt(value: unknown, path: string): unknown {
  if (path === '') return value;
  if (typeof value !== 'object' || value === null) return undefined;
  const fields = value as Record<string, unknown>;
  if (Object.hasOwn(fields, path)) return fields[path];
  for (let dot = path.indexOf('.'); dot >= 0; dot = path.indexOf('.', dot + 1)) {
    const name = path.slice(0, dot);
    const found = Object.hasOwn(fields, name) ? valueAt(fields[name], path.slice(dot + 1)) : undefined;
    if (found !== undefined) return found;
  }
  return undefined;
}

function textOf(value: unknown): string {
  if (value === undefined || value === null) return '';
  if (typeof value === 'object') return JSON.stringify(value, jsonValue);
  return typeof value === 'bigint' ? formatTimestamp(value) : String(value);
}
