/**
 * Graph ops as bytes, for the log and the journal: each word a varint, most of which take one byte or three. Pure.
 */
import { type ByteReader, DamagedBytes } from '../../schema/bytes.js';

/** Written by `ByteWriter.varints`. */
export interface PackedOps {
  readonly words: number;
  readonly bytes: Uint8Array;
}

/** Reads up to the end. DamagedBytes when there are not so many words. */
export function readOps(reader: ByteReader, words: number): Uint32Array {
  if (words > reader.left) throw new DamagedBytes('it ends early');
  const ops = new Uint32Array(words);
  for (let i = 0; i < words; i++) {
    const word = reader.varint();
    if (word > 0xffffffff) throw new DamagedBytes('a word is too large');
    ops[i] = word;
  }
  if (!reader.atEnd) throw new DamagedBytes('bytes are left over');
  return ops;
}
