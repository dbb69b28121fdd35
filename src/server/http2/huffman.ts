/**
 * Header strings in HPACK's Huffman code (RFC 7541, appendix B), decoded by half bytes with a state table.
 * The code is canonical, so the lengths of its words define it: words of one length follow each other in the
 * order of their symbols. Pure.
 */
import { ConnectionError, ErrorCode } from './constants.js';

/** Length in bits of the code of each byte, 0 to 255, and of the end of the string. */
const lengths: readonly number[] = [
  13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28,
  28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7,
  8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19,
  13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13,
  28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21,
  22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23,
  22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
  19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25,
  25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26, 30,
];
const EOS = 256;
const BITS_MAX = 30;
/** A string may end with up to seven padding bits, all ones. */
const PADDING_BITS_MAX = 7;

/** By state and half byte: the next state, and the decoded byte (or -1). */
const next = new Int16Array(EOS * 16);
const emitted = new Int16Array(EOS * 16).fill(-1);
/** Whether a string may end in a state. */
const mayEnd = new Uint8Array(EOS);
const FAILED = -1;

/** The code as a tree: two numbers for each node, either a node above 0 or a symbol as -1 - symbol. */
function treeOf(): Int16Array {
  const tree = new Int16Array(2 * EOS);
  let nodes = 1;
  let word = 0;
  for (let bits = 1; bits <= BITS_MAX; bits++) {
    word *= 2;
    for (let symbol = 0; symbol <= EOS; symbol++) {
      if (lengths[symbol] !== bits) continue;
      let node = 0;
      for (let bit = bits - 1; bit > 0; bit--) {
        const edge = 2 * node + (Math.floor(word / 2 ** bit) % 2);
        if (tree[edge] === 0) tree[edge] = nodes++;
        node = tree[edge]!;
      }
      tree[2 * node + (word % 2)] = -1 - symbol;
      word++;
    }
  }
  return tree;
}

function fillTables(): void {
  const tree = treeOf();
  for (let state = 0; state < EOS; state++) {
    for (let half = 0; half < 16; half++) {
      let node = state;
      for (let bit = 3; bit >= 0 && node !== FAILED; bit--) {
        node = tree[2 * node + ((half >> bit) & 1)]!;
        if (node >= 0) continue;
        const symbol = -1 - node;
        // The end-of-string symbol is not allowed in a string.
        if (symbol === EOS) node = FAILED;
        else {
          emitted[state * 16 + half] = symbol;
          node = 0;
        }
      }
      next[state * 16 + half] = node;
    }
  }
  let node = 0;
  for (let bits = 0; bits <= PADDING_BITS_MAX; bits++) {
    mayEnd[node] = 1;
    node = tree[2 * node + 1]!;
  }
}
fillTables();

let scratch = Buffer.allocUnsafe(4096);
const WORD_BITS_MIN = 5;

/** Decodes the string in `bytes` from `start` to `end`, one character for each byte. */
export function decodeHuffman(bytes: Uint8Array, start: number, end: number): string {
  const most = Math.ceil(((end - start) * 8) / WORD_BITS_MIN);
  if (scratch.length < most) scratch = Buffer.allocUnsafe(most);
  let state = 0;
  let count = 0;
  for (let at = start; at < end; at++) {
    const byte = bytes[at]!;
    for (let shift = 4; shift >= 0; shift -= 4) {
      const step = state * 16 + ((byte >> shift) & 15);
      const symbol = emitted[step]!;
      if (symbol >= 0) scratch[count++] = symbol;
      state = next[step]!;
      if (state === FAILED) throw new ConnectionError(ErrorCode.compressionError, 'end inside a string');
    }
  }
  if (mayEnd[state] === 0) throw new ConnectionError(ErrorCode.compressionError, 'bad padding of a string');
  return scratch.toString('latin1', 0, count);
}
