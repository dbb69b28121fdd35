/**
 * The interface definitions in api/ as methods and codecs: reads the .proto files once, on first use, and
 * provides for each method its path and its codecs. Called by the daemon and by clients.
 *
 * Messages are plain objects with the fields' names in camelCase. Decoded ones have '' , 0, [] or {} where a
 * field was not sent, and null for a message. 64-bit numbers are JavaScript numbers: none of ours exceeds
 * 2^53, and the stores refuse a larger one from a client as not a valid number of bytes.
 */
import { fileURLToPath } from 'node:url';
import protobuf from 'protobufjs';
import { present } from '../errors.js';
import { PREFIX_BYTES } from './grpc/prefix.js';
import { type Chunks, chunksOf } from './messages/chunks.js';
import { encoderOf, itemWriterOf, messageWriter, type Writer } from './messages/encoder.js';

const API = fileURLToPath(new URL('../../../src/server/api/', import.meta.url));

const files = [
  'containerd/services/containers.proto',
  'containerd/services/content.proto',
  'containerd/services/diff.proto',
  'containerd/services/events.proto',
  'containerd/services/images.proto',
  'containerd/services/introspection.proto',
  'containerd/services/leases.proto',
  'containerd/services/mounts.proto',
  'containerd/services/namespaces.proto',
  'containerd/services/sandbox.proto',
  'containerd/services/snapshots.proto',
  'containerd/services/streaming.proto',
  'containerd/services/tasks.proto',
  'containerd/services/transfer.proto',
  'containerd/services/version.proto',
  'containerd/types/transfer.proto',
  'containerd/events/events.proto',
  'containerd/events/image-events.proto',
  'ebbtide/ebbtide.proto',
  'grpc/health/health.proto',
];

let loaded: protobuf.Root | undefined;

function root(): protobuf.Root {
  if (loaded !== undefined) return loaded;
  const tree = new protobuf.Root();
  tree.resolvePath = (_origin, target) => API + target;
  tree.loadSync(files);
  for (const type of typesIn(tree)) for (const field of type.fieldsArray) readAsNumber(type, field);
  loaded = tree;
  return tree;
}

/**
 * A 64-bit field that was not sent is a plain number too. Never by the library's own switch, which is one for the process: etcd's
 * client reads its leases by the same library, and those need all 64 bits.
 */
function readAsNumber(type: protobuf.Type, field: protobuf.Field): void {
  if (!field.long) return;
  field.long = false;
  if (field.repeated || field.map || field.typeDefault === null) return;
  field.typeDefault = 0;
  field.defaultValue = 0;
  (type.ctor.prototype as Record<string, unknown>)[field.name] = 0;
}

/** Reads 64-bit numbers as plain ones. */
class NumberReader extends protobuf.BufferReader {
  override int64(): never {
    return numberOf(super.int64()) as never;
  }
  override uint64(): never {
    return numberOf(super.uint64()) as never;
  }
  override sint64(): never {
    return numberOf(super.sint64()) as never;
  }
  override fixed64(): never {
    return numberOf(super.fixed64()) as never;
  }
  override sfixed64(): never {
    return numberOf(super.sfixed64()) as never;
  }
}

/** Without its class for such numbers the library reads plain ones itself. */
const numberOf = (value: unknown): number =>
  typeof value === 'number' ? value : (value as { toNumber(): number }).toNumber();

/** Encodes and decodes one type of message. */
export interface Codec<T = unknown> {
  encode(message: T): Buffer;
  /** Encodes after PREFIX_BYTES free bytes. MessageTooLarge: it takes more than `bytesMax` bytes. */
  frame(message: T, bytesMax?: number): Buffer;
  /** Encodes a message that has only a list, by the name of its field, from its items. */
  chunks(field: string, items: Iterable<unknown>): Chunks;
  decode(bytes: Buffer): T;
}

/** The codec of a message type by its full name. */
export const codecOf = <T = unknown>(typeName: string): Codec<T> => codec<T>(root().lookupType(typeName));

/** Writes a message of a type, by its full name, as a nested message. */
export const writerOf = (typeName: string): Writer => messageWriter(root().lookupType(typeName));

/** Every message type of the definitions; for the tests. */
export function messageTypes(): protobuf.Type[] {
  return typesIn(root());
}

function typesIn(tree: protobuf.Root): protobuf.Type[] {
  const types: protobuf.Type[] = [];
  const visit = (space: protobuf.NamespaceBase): void => {
    for (const nested of space.nestedArray) {
      if (nested instanceof protobuf.Type) types.push(nested);
      if (nested instanceof protobuf.Namespace) visit(nested);
    }
  };
  visit(tree);
  return types;
}

function codec<T>(type: protobuf.Type): Codec<T> {
  return {
    encode: encoderOf(type),
    frame: encoderOf(type, PREFIX_BYTES),
    chunks: (field, items) => chunksOf(itemWriterOf(type, field), items),
    // The definition justifies the cast; unknown fields are skipped.
    decode: (bytes) => type.decode(new NumberReader(bytes)) as T,
  };
}

export interface Method {
  /** As in the definition: `ListStatuses`. */
  readonly name: string;
  /** `/containerd.services.content.v1.Content/ListStatuses` */
  readonly path: string;
  readonly requestStream: boolean;
  readonly responseStream: boolean;
  readonly request: Codec;
  readonly response: Codec;
}

const services = new Map<string, ReadonlyMap<string, Method>>();

/** The methods of a service by name. */
export function methodsOf(service: string): ReadonlyMap<string, Method> {
  let methods = services.get(service);
  if (methods === undefined) {
    const found = root().lookupService(service);
    methods = new Map(found.methodsArray.map((method) => [method.name, shapeOf(service, method)]));
    services.set(service, methods);
  }
  return methods;
}

function shapeOf(service: string, method: protobuf.Method): Method {
  method.resolve();
  const { name, requestStream, responseStream, resolvedRequestType, resolvedResponseType } = method;
  return {
    name,
    path: `/${service}/${name}`,
    requestStream: requestStream === true,
    responseStream: responseStream === true,
    request: codec(present(resolvedRequestType, `the request of ${name}`)),
    response: codec(present(resolvedResponseType, `the response of ${name}`)),
  };
}
