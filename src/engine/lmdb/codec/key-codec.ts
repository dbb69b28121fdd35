/**
 * Keys and links as bytes whose order is the UTF-8 order of the keys' components, with digests packed. Called by the
 * storage; part of the file format. Pure but for a scratch buffer: what `encode…` returns is valid until the next
 * call. Of schema/bytes.ts only the growing buffer would be shared: keys have neither numbers nor lengths.
 *
 * A key is its components joined by 00. The first, the collection, is one byte (an unlisted one is a byte and its
 * text). Another component is its UTF-8 text, but for the space that digests need:
 *
 *   first byte below 73 ("s")           as it is
 *   73 + rest of the text               begins with "s", sorts before "sha256:"
 *   74 + 32 bytes + 01                  "sha256:" and 64 lower-case hex digits
 *   74 + 32 bytes + 00 + rest           another text that begins with "sha256:"; the bytes are the next greater digest
 *   74 + ff × 32 + 02 + rest            the same, when no digest is greater
 *   75 + rest of the text               begins with "s", sorts after every "sha256:…"
 *   first byte + 2                      all others
 *
 * A link is its `from`, 00 00, its relation (like a collection), 00 00 and its `to`: after 02 only what follows the
 * parent it shares with `from`; after 01 or 03 whole, when it sorts before or after everything below that parent.
 */
import { compareUtf8 } from '../../../model/utf8.js';
import type { Key } from '../../contract.js';
import { asBuffer } from '../../core/bytes.js';
import { type LinkKey, splitLink } from '../../core/storage.js';
import { DamagedBytes, type SlicingBuffer } from '../../schema/bytes.js';
import { keepParent, knownParent } from './parents.js';

/** Words that take one byte, sorted; a new one goes between its neighbours with a code between theirs. */
const collectionCodes: readonly (readonly [string, number])[] = [
  ['backendnames', 0x08],
  ['blobs', 0x10],
  ['containers', 0x18],
  ['foreign', 0x20],
  ['images', 0x28],
  ['ingests', 0x30],
  ['leases', 0x38],
  ['meta', 0x40],
  ['namespaces', 0x48],
  ['raw', 0x50],
  ['sandboxes', 0x58],
  ['snapshots', 0x60],
  ['snapshotters', 0x68],
];
const relationCodes: readonly (readonly [string, number])[] = [
  ['children', 0x08],
  ['holds', 0x10],
  ['holds.flat', 0x18],
  ['named', 0x20],
];
const codesByWord = new Map(
  [collectionCodes, relationCodes].flatMap((codes) => codes.map(([word, code]) => [word, { codes, code }])),
);
/** The low bits of the code before a word that is spelled out, which sorts after the listed one before it. */
const SPELLED = 7;

const DIGEST_PREFIX = 'sha256:';
export const DIGEST_BYTES = 32;
const DIGEST_LENGTH = DIGEST_PREFIX.length + 2 * DIGEST_BYTES;
const BYTE_S = 0x73;
const BYTE_DIGEST = 0x74;
const BYTE_BEHIND = 0x75;
/** What the first bytes after "s" moved by to make room. */
const SHIFT = 2;
/** Digits of a digest that are kept in the index, in bytes; a longer beginning of a key is not worth cutting. */
const CUT_BYTES = 7;
/** The same with the byte that says that a digest follows. */
export const DIGEST_CUT_BYTES = 1 + CUT_BYTES;
const CUT_KEY_MAX = 512;
const Target = { before: 1, sibling: 2, after: 3 } as const;
const Marker = { before: 0, exact: 1, last: 2 } as const;

/** Value of a lower-case hex digit by char code, -1 for anything else. */
const hexValues = new Int8Array(128).fill(-1);
for (let i = 0; i < 16; i++) hexValues[i.toString(16).charCodeAt(0)] = i;

let scratch = Buffer.allocUnsafe(4096);
let length = 0;
/** The scratch buffer up to each length: there are few, and a view costs more than a short key. */
let views: Buffer[] = [];

function written(size: number): Buffer {
  let view = views[size];
  if (view === undefined) {
    view = scratch.subarray(0, size);
    if (size < VIEWS_MAX) views[size] = view;
  }
  return view;
}
const VIEWS_MAX = 512;

export function encodeKey(key: Key): Buffer {
  length = 0;
  lastCut = 0;
  const parentLength = key.length - DIGEST_LENGTH;
  // Most keys end in a digest, and few are the beginnings they share.
  if (parentLength > 0 && key.startsWith(DIGEST_PREFIX, parentLength)) writeDigestKey(key, parentLength);
  else writeKey(key);
  return written(length);
}

function writeDigestKey(key: Key, parentLength: number): void {
  // With its separator, which a key that begins a component here has before it.
  if (key.charCodeAt(parentLength - 1) !== 0) {
    writeKey(key);
    return;
  }
  const parent = parentOfLength(key, parentLength);
  reserve(parent.bytes.length);
  for (let i = 0; i < parent.bytes.length; i++) scratch[i] = parent.bytes[i] ?? 0;
  length = parent.bytes.length;
  const start = length;
  if (writeDigest(key, parentLength)) {
    if (start + 1 + CUT_BYTES <= CUT_KEY_MAX) lastCut = start + 1 + CUT_BYTES;
    return;
  }
  // What looked like a digest is none, or more than one component.
  length = 0;
  writeKey(key);
}

/** `digestCut` of what was encoded last, which is known by then. */
export const encodedCut = (): number => lastCut;
/** The bytes that name it in the index of digests. */
export const encodedBeginning = (): Buffer => written(lastCut);
let lastCut = 0;

interface Parent {
  readonly text: string;
  readonly bytes: Buffer;
}
let lastParent: Parent = { text: '', bytes: Buffer.alloc(0) };
const parents = new Map<string, Parent>();
const PARENTS_MAX = 1024;

/** The beginning of a key, with its separator, and its bytes; a caller that reads many keys mostly reads neighbours. */
function parentOfLength(key: Key, size: number): Parent {
  if (lastParent.text.length === size && key.startsWith(lastParent.text)) return lastParent;
  const text = key.slice(0, size);
  let parent = parents.get(text);
  if (parent === undefined) {
    writeKey(text.slice(0, -1));
    writeByte(0);
    parent = { text, bytes: Buffer.from(scratch.subarray(0, length)) };
    if (parents.size === PARENTS_MAX) parents.clear();
    parents.set(text, parent);
  }
  lastParent = parent;
  return parent;
}

/** The beginning of every key strictly below a prefix; nothing for the prefix ''. */
export function encodeBelow(prefix: Key): Buffer {
  length = 0;
  if (prefix !== '') {
    writeKey(prefix);
    writeByte(0);
  }
  return written(length);
}

export function encodeLink(link: LinkKey): Buffer {
  const { from, relation, to } = splitLink(link);
  length = 0;
  writeKey(from);
  writeByte(0);
  writeByte(0);
  writeWord(relationCodes, relation);
  writeByte(0);
  writeByte(0);
  writeTarget(from, to);
  return written(length);
}

function writeTarget(from: Key, to: Key): void {
  const parent = parentOf(from);
  if (parent === '') {
    writeByte(Target.after);
    writeKey(to);
  } else if (to.startsWith(parent)) {
    writeByte(Target.sibling);
    writeComponents(to, parent.length);
  } else {
    writeByte(compareUtf8(to, parent) < 0 ? Target.before : Target.after);
    writeKey(to);
  }
}

/** All but the last component, with the separator; '' when there is but one. */
const parentOf = (key: Key): string => key.slice(0, key.lastIndexOf('\0') + 1);

/** The beginning of every link that begins with `linksPrefix(from)` or `linkPrefix(from, relation)`; '' is all. */
export function encodeLinkPrefix(prefix: string): Buffer {
  length = 0;
  if (prefix !== '') {
    const { from, relation } = splitLink(`${prefix}\0\0`);
    writeKey(from);
    writeByte(0);
    writeByte(0);
    if (relation !== '') {
      writeWord(relationCodes, relation);
      writeByte(0);
      writeByte(0);
    }
  }
  return written(length);
}

function writeKey(key: Key): void {
  const end = key.indexOf('\0');
  writeWord(collectionCodes, end < 0 ? key : key.slice(0, end));
  if (end < 0) return;
  writeByte(0);
  writeComponents(key, end + 1);
}

/** The components from unit `start` on, which begins one. */
function writeComponents(key: Key, start: number): void {
  for (let at = start; ; ) {
    const end = key.indexOf('\0', at);
    writeComponent(end < 0 ? key.slice(at) : key.slice(at, end));
    if (end < 0) return;
    writeByte(0);
    at = end + 1;
  }
}

function writeWord(codes: readonly (readonly [string, number])[], word: string): void {
  const known = codesByWord.get(word);
  if (known !== undefined && known.codes === codes) {
    writeByte(known.code);
    return;
  }
  let code = 0;
  for (const [listed, listedCode] of codes) {
    if (listed === word) {
      writeByte(listedCode);
      return;
    }
    if (compareUtf8(listed, word) > 0) break;
    code = listedCode & ~SPELLED;
  }
  writeByte(code | SPELLED);
  writeText(word, 0);
}

function writeComponent(text: string): void {
  const first = text.charCodeAt(0);
  if (first < BYTE_S) {
    writeText(text, 0);
  } else if (first > BYTE_S) {
    const start = length;
    writeText(text, 0);
    scratch[start] = (scratch[start] ?? 0) + SHIFT;
  } else if (text.startsWith(DIGEST_PREFIX)) {
    if (!writeDigest(text, 0)) writeNearDigest(text);
  } else {
    writeByte(compareUtf8(text, DIGEST_PREFIX) < 0 ? BYTE_S : BYTE_BEHIND);
    writeText(text, 1);
  }
}

/** False, with nothing written, unless the text from unit `start` on, which begins as a digest, is a canonical one. */
function writeDigest(text: string, start: number): boolean {
  if (text.length - start !== DIGEST_LENGTH) return false;
  reserve(DIGEST_BYTES + 2);
  let at = length + 1;
  for (let i = start + DIGEST_PREFIX.length; i < text.length; i += 2) {
    const high = hexValues[text.charCodeAt(i)] ?? -1;
    const low = hexValues[text.charCodeAt(i + 1)] ?? -1;
    if (high < 0 || low < 0) return false;
    scratch[at++] = (high << 4) | low;
  }
  scratch[length] = BYTE_DIGEST;
  scratch[at++] = Marker.exact;
  length = at;
  return true;
}

/** A text that begins as a digest and is none: placed before the next greater digest. */
function writeNearDigest(text: string): void {
  const next = nextDigest(text.slice(DIGEST_PREFIX.length));
  writeByte(BYTE_DIGEST);
  reserve(DIGEST_BYTES + 1);
  if (next === undefined) scratch.fill(0xff, length, length + DIGEST_BYTES);
  else scratch.write(next, length, 'hex');
  length += DIGEST_BYTES;
  writeByte(next === undefined ? Marker.last : Marker.before);
  writeText(text, DIGEST_PREFIX.length);
}

/** The least string of 64 hex digits that sorts after `rest`, which is not one itself. */
function nextDigest(rest: string): string | undefined {
  let count = 0;
  while (count < 2 * DIGEST_BYTES && (hexValues[rest.charCodeAt(count)] ?? -1) >= 0) count++;
  const digits = rest.slice(0, count);
  const unit = rest.charCodeAt(count);
  let beginning: string | undefined;
  if (count < 2 * DIGEST_BYTES && (Number.isNaN(unit) || unit < 0x30)) beginning = digits;
  else if (count < 2 * DIGEST_BYTES && unit < 0x61) beginning = `${digits}a`;
  else beginning = increment(digits);
  return beginning?.padEnd(2 * DIGEST_BYTES, '0');
}

/** Hex digits plus one; undefined when they are all f, or none. */
function increment(digits: string): string | undefined {
  let last = digits.length - 1;
  while (last >= 0 && digits[last] === 'f') last--;
  if (last < 0) return undefined;
  return digits.slice(0, last) + (Number.parseInt(digits.charAt(last), 16) + 1).toString(16);
}

/** UTF-8 of `text` from unit `start` on. */
function writeText(text: string, start: number): void {
  reserve((text.length - start) * 3);
  for (let i = start; i < text.length; i++) {
    const unit = text.charCodeAt(i);
    if (unit >= 0x80) {
      length += scratch.write(text.slice(i), length, 'utf8');
      return;
    }
    scratch[length++] = unit;
  }
}

function writeByte(byte: number): void {
  reserve(1);
  scratch[length++] = byte;
}

function reserve(size: number): void {
  if (length + size <= scratch.length) return;
  const larger = Buffer.allocUnsafe(Math.max(scratch.length * 2, length + size));
  scratch.copy(larger, 0, 0, length);
  scratch = larger;
  views = [];
}

// --------------------------------------------------------------------------------------------------------- reading

let source = scratch as SlicingBuffer; // every Buffer has the two methods
let position = 0;
let sourceEnd = 0;
/** Where the component that was read last begins. */
let leafStart = 0;

export function decodeKey(bytes: Uint8Array, start = 0, end = bytes.length): Key {
  const last = decodeLeaf(bytes, start, end);
  return lastDecoded + last;
}

/** As `decodeKey`, the last component only: what comes before it, with its separator, is `decodedParent` then. */
export function decodeLeaf(bytes: Uint8Array, start: number, end: number): string {
  begin(bytes, start, end);
  const parent = knownParent(source, start, end);
  if (parent !== undefined) {
    position += parent.bytes.length;
    const last = readComponent();
    if (position === sourceEnd) {
      lastDecoded = parent.text;
      return last;
    }
    position = start;
  }
  const key = readKey();
  if (position !== sourceEnd) throw new DamagedBytes('a key has bytes left over');
  lastDecoded = parentOf(key);
  if (leafStart > start)
    keepParent({ bytes: Buffer.from(source.subarray(start, leafStart)), text: lastDecoded });
  return key.slice(lastDecoded.length);
}

/** What comes before a key's last component, with its separator, where that is a digest and this was read before; else undefined. */
export function parentOfDigest(bytes: Buffer, start: number, end: number): string | undefined {
  const at = end - DIGEST_BYTES - 2;
  const isDigest = at > start && bytes[at] === BYTE_DIGEST && bytes[end - 1] === Marker.exact;
  const parent = isDigest ? knownParent(bytes, start, end) : undefined;
  return parent !== undefined && start + parent.bytes.length === at ? parent.text : undefined;
}

export const decodedParent = (): string => lastDecoded;
let lastDecoded = '';

/** Where the 32 bytes of the digest begin that is a key's last component; -1 when that is no `sha256:` digest. */
export function digestStart(bytes: Buffer, start: number, end: number): number {
  const at = end - DIGEST_BYTES - 2;
  if (at <= start || bytes[at] !== BYTE_DIGEST || bytes[end - 1] !== Marker.exact) return -1;
  const parent = knownParent(bytes, start, end);
  if (parent !== undefined && start + parent.bytes.length === at) return at + 1;
  // A digest may hold any byte, so only the components before it show whether one begins here.
  decodeKey(bytes, start, end);
  return leafStart === at ? at + 1 : -1;
}

export function decodeLink(bytes: Uint8Array): LinkKey {
  begin(bytes, 0, bytes.length);
  const from = readKey();
  position += 2;
  const relation = readWord(relationCodes);
  position += 2;
  const to = source[position++] === Target.sibling ? parentOf(from) + readComponents() : readKey();
  return `${from}\0\0${relation}\0\0${to}`;
}

function begin(bytes: Uint8Array, start: number, end: number): void {
  source = asBuffer(bytes) as SlicingBuffer;
  position = start;
  leafStart = start;
  sourceEnd = end;
}

/** Up to the end, or to the 00 00 that ends the first key of a link. */
function readKey(): Key {
  const collection = readWord(collectionCodes);
  if (atKeyEnd()) return collection;
  position++;
  return `${collection}\0${readComponents()}`;
}

function readComponents(): string {
  let components = readComponent();
  while (!atKeyEnd()) {
    position++;
    components += `\0${readComponent()}`;
  }
  return components;
}

const atKeyEnd = (): boolean => position >= sourceEnd || source[position + 1] === 0;

function readWord(codes: readonly (readonly [string, number])[]): string {
  const code = source[position++];
  if (code === undefined) throw new DamagedBytes('a key is empty');
  if ((code & SPELLED) === SPELLED) return readText();
  for (const [word, listed] of codes) if (listed === code) return word;
  throw new DamagedBytes(`collection ${code} is unknown`);
}

function readComponent(): string {
  leafStart = position;
  const first = source[position];
  if (first === undefined || position >= sourceEnd) throw new DamagedBytes('a key ends early');
  if (first < BYTE_S) return readText();
  if (first === BYTE_DIGEST) return readDigest();
  position++;
  if (first === BYTE_S || first === BYTE_BEHIND) return `s${readText()}`;
  // The first byte is restored in a copy: the source may be shared.
  const rest = textEnd();
  const bytes = Buffer.from(source.subarray(position - 1, rest));
  bytes[0] = first - SHIFT;
  position = rest;
  return bytes.toString('utf8');
}

function readDigest(): string {
  const start = position + 1;
  position = start + DIGEST_BYTES + 1;
  if (position > sourceEnd) throw new DamagedBytes('a key ends early');
  const marker = source[position - 1];
  if (marker === Marker.exact) return DIGEST_PREFIX + source.hexSlice(start, start + DIGEST_BYTES);
  return DIGEST_PREFIX + readText();
}

function readText(): string {
  const start = position;
  position = textEnd();
  return source.utf8Slice(start, position);
}

function textEnd(): number {
  let end = position;
  while (end < sourceEnd && source[end] !== 0) end++;
  return end;
}

// --------------------------------------------------------------------------------------------------- short digests

/**
 * How many bytes of an encoded key name it in the index of digests: all but the end of a digest that it ends in; 0 when
 * it does not. Many keys may share these bytes; in the order of keys they stand where any of them would.
 */
export function digestCut(bytes: Uint8Array): number {
  const start = bytes.length - DIGEST_BYTES - 2;
  if (start < 2 || bytes[start] !== BYTE_DIGEST || bytes[bytes.length - 1] !== Marker.exact) return 0;
  if (start + 1 + CUT_BYTES > CUT_KEY_MAX) return 0;
  // A digest may hold any byte, so only the components before it show whether one begins here.
  for (let at = bytes.indexOf(0) + 1; at > 0 && at <= start; ) {
    if (at === start) return start + 1 + CUT_BYTES;
    at = componentEnd(bytes, at) + 1;
  }
  return 0;
}

/** The bound among cut keys that lies before every one whose whole key lies after `bytes`. */
export function cutBound(bytes: Uint8Array): Uint8Array {
  for (let at = bytes.indexOf(0) + 1; at > 0 && at < bytes.length; at = componentEnd(bytes, at) + 1) {
    if (bytes[at] === BYTE_DIGEST) return bytes.subarray(0, at + 1 + CUT_BYTES);
  }
  return bytes;
}

/** Where the component that begins at `at` ends: at its separator, or at the end. */
function componentEnd(bytes: Uint8Array, at: number): number {
  const end = bytes.indexOf(0, bytes[at] === BYTE_DIGEST ? at + DIGEST_BYTES + 2 : at);
  return end < 0 ? bytes.length : end;
}
