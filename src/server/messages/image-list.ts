/**
 * `ListImagesResponse`: copies the fields of stored images into the message without creating objects; an
 * image with anything unusual goes through the general encoder. Field numbers are those of
 * api/containerd/services/images.proto and types/types.proto.
 */
import { DamagedBytes } from '../../engine/schema/bytes.js';
import type { StoredRecord } from '../../engine/schema/stored-record.js';
import type { Image, StoredImages } from '../../stores/images.js';
import { codecOf, writerOf } from '../schema.js';
import { type Chunks, chunksBy } from './chunks.js';
import { timestampOf } from './convert.js';
import type { ImageMessage } from './messages.js';
import { begin, end, mark, putNumber, putText, putTextOf, tagOf, undoTo, Wire } from './wire-writer.js';

const LIST = 'containerd.services.images.v1.ListImagesResponse';
const IMAGE = 'containerd.services.images.v1.Image';

const IMAGES = tagOf(1, Wire.bytes);
const Field = {
  name: tagOf(1, Wire.bytes),
  labels: tagOf(2, Wire.bytes),
  target: tagOf(3, Wire.bytes),
  createdAt: tagOf(7, Wire.bytes),
  updatedAt: tagOf(8, Wire.bytes),
} as const;
const Target = {
  mediaType: tagOf(1, Wire.bytes),
  digest: tagOf(2, Wire.bytes),
  size: tagOf(3, Wire.varint),
  annotations: tagOf(5, Wire.bytes),
} as const;
const Entry = { key: tagOf(1, Wire.bytes), value: tagOf(2, Wire.bytes) } as const;
const Time = { seconds: tagOf(1, Wire.varint), nanos: tagOf(2, Wire.varint) } as const;

/** What the service returns: all images as they are stored, or a selection. */
export type ImageList = StoredImages | Iterable<ImageMessage>;

/** Encodes responses; `messageOf` builds the message of an image for the general encoder. */
export function imageListChunks(messageOf: (image: Image) => ImageMessage): (result: unknown) => Chunks {
  const { chunks } = codecOf(LIST);
  const writeMessage = writerOf(IMAGE);
  const write = (name: string, record: StoredRecord, image: () => Image): void => {
    const start = begin(IMAGES);
    if (!writeStored(name, record)) {
      undoTo(start + 1);
      writeMessage(messageOf(image()));
    }
    end(start);
  };
  return (result) => {
    const list = result as ImageList;
    return 'visitNext' in list ? chunksBy(() => list.visitNext(write)) : chunks('images', list);
  };
}

/** Returns false, with a partial message written, when the record has something unknown here. */
function writeStored(name: string, record: StoredRecord): boolean {
  try {
    return findFields(record) && writeFields(name, record);
  } catch (error) {
    // The general encoder reports what is wrong with it.
    if (error instanceof DamagedBytes) return false;
    throw error;
  }
}

/** Offsets of the fields in the current record; -1: missing. */
const places = { labels: -1, annotations: -1, target: -1 };
let createdAt = 0n;
let updatedAt = 0n;

function findFields(record: StoredRecord): boolean {
  places.labels = places.annotations = places.target = -1;
  let times = 0;
  const count = record.fields();
  for (let i = 0; i < count; i++) {
    const field = record.field();
    if (field === 'createdat' || field === 'updatedat') {
      const instant = record.instant();
      if (instant === undefined) return false;
      if (field === 'createdat') createdAt = instant;
      else updatedAt = instant;
      times++;
    } else if (field === 'labels' || field === 'annotations' || field === 'target') {
      places[field] = record.place;
      if (!record.skip()) return false;
    } else return false;
  }
  return record.atEnd && times === 2 && places.target >= 0;
}

function writeFields(name: string, record: StoredRecord): boolean {
  putText(Field.name, name);
  if (!writeMap(Field.labels, record, places.labels)) return false;
  if (!writeTarget(record)) return false;
  writeTime(Field.createdAt, createdAt);
  writeTime(Field.updatedAt, updatedAt);
  return true;
}

function writeMap(tag: number, record: StoredRecord, place: number): boolean {
  if (place < 0) return true;
  record.place = place;
  const count = record.entries();
  for (let i = 0; i < count; i++) {
    const start = begin(tag);
    putTextOf(Entry.key, record);
    putTextOf(Entry.value, record);
    end(start);
  }
  return count >= 0;
}

function writeTarget(record: StoredRecord): boolean {
  record.place = places.target;
  const count = record.fields();
  let [digest, mediaType, size] = [-1, -1, -1];
  for (let i = 0; i < count; i++) {
    const field = record.field();
    const { place } = record;
    if (field === 'digest') digest = place;
    else if (field === 'mediatype') mediaType = place;
    else if (field === 'size') size = place;
    if (!record.skip()) return false;
  }
  if (count !== 3 || digest < 0 || mediaType < 0 || size < 0) return false;
  const start = begin(Field.target);
  if (!writeText(Target.mediaType, record, mediaType)) return false;
  if (!writeText(Target.digest, record, digest)) return false;
  record.place = size;
  const bytes = record.natural();
  if (bytes < 0) return false;
  if (bytes > 0) putNumber(Target.size, bytes);
  if (!writeMap(Target.annotations, record, places.annotations)) return false;
  end(start);
  return true;
}

/** An empty string is left out, as defaults are. */
function writeText(tag: number, record: StoredRecord, place: number): boolean {
  record.place = place;
  if (!record.isText()) return false;
  const before = mark();
  if (putTextOf(tag, record) === 0) undoTo(before);
  return true;
}

function writeTime(tag: number, instant: bigint): void {
  const { seconds, nanos } = timestampOf(instant);
  const start = begin(tag);
  if (seconds !== 0) putNumber(Time.seconds, seconds);
  if (nanos !== 0) putNumber(Time.nanos, nanos);
  end(start);
}
