/** What the command prints with `--json` against docs/ebbtide.schema.json. */
import assert from 'node:assert/strict';
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js';
import { ERROR, readSchema, schemaOf } from '../../src/cli/schema.js';

const schema = readSchema();
const ajv = new Ajv2020({ allErrors: true, strict: true, allowUnionTypes: true, inlineRefs: false });
const validators = new Map<string, ValidateFunction>();

/** Verbs whose documents were checked. */
export const checked = new Set<string>();

function check(verb: string, document: unknown): void {
  const validate = validators.get(verb) ?? ajv.compile(schemaOf(verb, schema));
  validators.set(verb, validate);
  if (!validate(document)) {
    const errors = validate.errors!.map(
      ({ instancePath, message, params }) => `${instancePath} ${message} ${JSON.stringify(params)}`,
    );
    assert.fail(
      `what ${verb} prints is not as its schema says:\n${errors.join('\n')}\n${JSON.stringify(document)}`,
    );
  }
  checked.add(verb);
}

/** Fails unless the document is what the schema says of the verb of these words. */
export function checkDocument(words: readonly string[], document: unknown): void {
  const verb = words
    .flatMap((word, at) => [`${word} ${words[at + 1]}`, word])
    .find((name) => name in schema.properties);
  assert.ok(verb, `${words.join(' ')} has no schema`);
  check(verb, document);
}

export const checkError = (document: unknown): void => check(ERROR, document);
