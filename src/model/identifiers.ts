/** Identifiers: namespaces, container ids, sandbox ids (spec: stores §1.2). */
import { invalidArgument } from '../errors.js';

/** The longest identifier. */
export const MAX_IDENTIFIER_BYTES = 76;
const PATTERN = /^[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*$/;

/** Throws InvalidArgument unless `value` is an identifier; `what` names it in the message. */
export function validateIdentifier(value: string, what = 'identifier'): void {
  if (value === lastValid) return;
  if (value === '') throw invalidArgument(`${what} must not be empty`);
  if (value.length > MAX_IDENTIFIER_BYTES || Buffer.byteLength(value) > MAX_IDENTIFIER_BYTES) {
    throw invalidArgument(`${what} "${value}" is longer than ${MAX_IDENTIFIER_BYTES} bytes`, {
      object: value,
    });
  }
  // In JavaScript `$` without the m flag matches only at the very end, so a trailing newline fails.
  if (!PATTERN.test(value)) {
    throw invalidArgument(
      `${what} "${value}" must be letters and digits, separated by single dots, dashes or underscores`,
      { object: value },
    );
  }
  lastValid = value;
}

/** Calls in a row are mostly of one namespace. */
let lastValid: string | undefined;
