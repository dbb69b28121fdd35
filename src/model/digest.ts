/**
 * Digests: `algorithm:hex`, the name of a blob. Called by stores/, backends/ and gc/. Pure, except for the
 * running hash.
 */
import { createHash, type Hash } from 'node:crypto';
import { type EbbtideError, invalidArgument } from '../errors.js';

/** Algorithms that digests may have. */
export type Algorithm = 'sha256' | 'sha384' | 'sha512';

/** The digest of no bytes. */
export const EMPTY_SHA256 = 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';

const HEX_DIGITS: Readonly<Record<Algorithm, number>> = { sha256: 64, sha384: 96, sha512: 128 };
const PATTERN = /^(?:sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})$/;
const SHA256_LENGTH = 'sha256:'.length + HEX_DIGITS.sha256;
/** Characters of a malformed digest that an error message shows. */
const SHOWN_CHARACTERS = 150;

/** Whether a text is a valid digest. */
export const isDigest = (d: string): boolean => isSha256(d) || PATTERN.test(d);

/** Same result as the pattern, and much faster; nearly all digests are sha256. */
function isSha256(d: string): boolean {
  if (d.length !== SHA256_LENGTH || !d.startsWith('sha256:')) return false;
  for (let i = 'sha256:'.length; i < SHA256_LENGTH; i++) {
    const unit = d.charCodeAt(i);
    const isDigit = unit >= 0x30 && unit <= 0x39;
    if (!isDigit && (unit < 0x61 || unit > 0x66)) return false;
  }
  return true;
}

const isAlgorithm = (name: string): name is Algorithm => Object.hasOwn(HEX_DIGITS, name);

/**
 * @throws InvalidArgument unless `d` is a known algorithm, a colon and that algorithm's number of lower-case
 * hex digits
 */
export function validateDigest(d: string): void {
  if (!isDigest(d)) parseDigest(d);
}

/** The parts of a digest; throws like `validateDigest`. */
export function parseDigest(d: string): { algorithm: Algorithm; hex: string } {
  const colon = d.indexOf(':');
  if (colon <= 0 || colon === d.length - 1) throw malformed(d, 'expected `algorithm:hex`');
  const algorithm = d.slice(0, colon);
  if (!isAlgorithm(algorithm)) throw malformed(d, 'unknown algorithm, expected sha256, sha384 or sha512');
  const hex = d.slice(colon + 1);
  const digits = HEX_DIGITS[algorithm];
  if (hex.length !== digits) throw malformed(d, `${algorithm} has ${digits} hex digits`);
  if (!PATTERN.test(d)) throw malformed(d, 'only the hex digits 0-9 and a-f are allowed');
  return { algorithm, hex };
}

function malformed(d: string, reason: string): EbbtideError {
  const shown = d.length > SHOWN_CHARACTERS ? `${d.slice(0, SHOWN_CHARACTERS)}…` : d;
  return invalidArgument(`invalid digest "${shown}": ${reason}`, { object: shown });
}

/** The digest of these bytes. */
export const digestOf = (bytes: Uint8Array, algorithm: Algorithm = 'sha256'): string =>
  `${algorithm}:${createHash(algorithm).update(bytes).digest('hex')}`;

/** A running digest, fed chunk by chunk. */
export class Digester {
  /** The algorithm of its digest. */
  readonly algorithm: Algorithm;
  readonly #hash: Hash;

  constructor(algorithm: Algorithm = 'sha256') {
    this.algorithm = algorithm;
    this.#hash = createHash(algorithm);
  }

  /** Adds bytes. */
  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
  }

  /** The digest of everything so far; may be called again, also after more bytes. */
  digest(): string {
    return `${this.algorithm}:${this.#hash.copy().digest('hex')}`;
  }
}
