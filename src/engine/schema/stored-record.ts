/**
 * A record as it is stored, read field by field without a value made of it: for callers that copy records into another form.
 * Knows what records mostly hold (texts, maps of texts, whole numbers, instants, records of these); for anything
 * else it returns -1, false or undefined, and the caller makes a value of the whole (`value`). Bytes that end early are
 * thrown as DamagedBytes, which `value` explains.
 */
import type { Key, StoredNode, Value } from '../contract.js';
import { decodeSlice, Kind } from './codec.js';
import { TextReader } from './codec-text.js';
import { fieldWords } from './dictionary.js';

const NO_BYTES = Buffer.alloc(0);
const INSTANT_BYTES = 8;
const NO_PLACE = -1;

export class StoredRecord {
  readonly #reader = new TextReader();
  #of: Key | StoredNode = '';
  #bytes: Buffer = NO_BYTES;
  #start = 0;
  #end = 0;
  /** Where the instant is that was read or passed over last. */
  #lastInstant = NO_PLACE;

  /** As given by `Engine.visit`; good as long. */
  begin(of: Key | StoredNode, bytes: Buffer, start: number, end: number): void {
    this.#of = of;
    this.#bytes = bytes;
    this.#start = start;
    this.#end = end;
    this.#lastInstant = NO_PLACE;
    this.#reader.begin(bytes, start, end, of);
  }

  /** As given by `Engine.readNode`; good as long. */
  beginNode(node: StoredNode): void {
    this.begin(node, node.bytes, node.start, node.end);
  }

  /** The whole record, wherever the reading is. Unknown, naming the key, when the bytes are damaged. */
  value(): Value {
    const key = typeof this.#of === 'string' ? this.#of : this.#of.key;
    return decodeSlice(key, this.#bytes, this.#start, this.#end);
  }

  get atEnd(): boolean {
    return this.#reader.atEnd;
  }

  /** A place to go back to, before a value. */
  get place(): number {
    return this.#reader.position;
  }
  set place(place: number) {
    this.#reader.position = place;
  }

  /** Number of fields of a record, which follow; -1 when another kind of value comes. */
  fields(): number {
    return this.#counted(Kind.record);
  }

  /** Name of a record's field, whose value follows; undefined for one that the dictionary does not have. */
  field(): (typeof fieldWords)[number] | undefined {
    return fieldWords[this.#reader.byte() - 1];
  }

  /** Number of entries of a map of texts, which follow as key, value, key, …; -1 when another kind of value comes. */
  entries(): number {
    return this.#counted(Kind.textMap);
  }

  #counted(kind: number): number {
    return this.#reader.byte() === kind ? this.#reader.varint() : -1;
  }

  /** Whether the value that comes is a text, which follows. */
  isText(): boolean {
    return this.#reader.byte() === Kind.text;
  }

  get textBytesMax(): number {
    return this.#reader.textBytesMax;
  }

  /** Copies a text as UTF-8 to a place that has `textBytesMax` bytes; returns where it ends. */
  copyText(target: Buffer, at: number): number {
    return this.#reader.copyText(target, at);
  }

  /** A whole number of at least 0; -1 when another kind of value comes. */
  natural(): number {
    return this.#counted(Kind.natural);
  }

  /** An instant, in the order of the record's fields; undefined when another kind of value comes. */
  instant(): bigint | undefined {
    if (!this.#passInstant(this.#reader.byte()) || this.#lastInstant === NO_PLACE) return undefined;
    const { position } = this.#reader;
    this.#reader.position = this.#lastInstant;
    const instant = this.#reader.i64();
    this.#reader.position = position;
    return instant;
  }

  #passInstant(kind: number): boolean {
    if (kind === Kind.instant) this.#lastInstant = this.#reader.skip(INSTANT_BYTES);
    return kind === Kind.instant || kind === Kind.sameInstant;
  }

  /** Passes over a value; false when it is not one of those known here. */
  skip(): boolean {
    const kind = this.#reader.byte();
    if (this.#passInstant(kind)) return true;
    if (kind === Kind.natural) {
      this.#reader.varint();
      return true;
    }
    if (kind === Kind.text) {
      this.#reader.skipText();
      return true;
    }
    if (kind === Kind.textMap) {
      for (let left = 2 * this.#reader.varint(); left > 0; left--) this.#reader.skipText();
      return true;
    }
    if (kind !== Kind.record) return false;
    for (let left = this.#reader.varint(); left > 0; left--) {
      if (this.field() === undefined || !this.skip()) return false;
    }
    return true;
  }
}
