/** The JSON schema of what verbs print with `--json` (docs/ebbtide.schema.json), for all verbs or for one. */
import { readFileSync } from 'node:fs';
import { invalidArgument } from '../errors.js';

interface Schema {
  readonly $schema: string;
  readonly properties: Readonly<Record<string, object>>;
  readonly $defs: Readonly<Record<string, object>>;
}

const FILE = new URL('../../../docs/ebbtide.schema.json', import.meta.url);

export const readSchema = (): Schema => JSON.parse(readFileSync(FILE, 'utf8')) as Schema;

/** The document of an error, on standard error. */
export const ERROR = 'error';

/** InvalidArgument for a verb that prints no document. */
export function schemaOf(verb: string, { $schema, properties, $defs }: Schema = readSchema()): object {
  const found = verb === ERROR ? $defs[ERROR] : properties[verb];
  if (found !== undefined) return { $schema, title: verb, ...found, $defs };
  throw invalidArgument(`"${verb}" prints no JSON document`, {
    object: verb,
    remedy: `there are: ${[...Object.keys(properties), ERROR].join(', ')}`,
  });
}
