/**
 * The streams that clients have opened by name, for a Transfer call to use: its archive, its progress. A stream is a call that
 * stays open, so its number and its memory are limited as those of calls are. Fed by streaming.ts, used by transfer.ts.
 */
import { alreadyExists, invalidArgument, notFound } from '../../errors.js';
import type { AnyMessage } from '../messages/messages.js';

const ID_BYTES_MAX = 1024;

/** One end of an open stream. */
export interface NamedStream {
  /** The client's next message; undefined when it has sent all. Rejects when it is gone. */
  receive(): Promise<AnyMessage | undefined>;
  /**
   * Resolves when the next may be sent. Rejects when the client is gone. A message that is encoded has PREFIX_BYTES free bytes before it, and
   * its buffer is free again then, unless it rejects.
   */
  send(message: AnyMessage | Buffer): Promise<void>;
  /** Ends the stream, with an error if there is one. Idempotent. */
  close(error?: unknown): void;
}

export class Streams {
  readonly #open = new Map<string, NamedStream>();

  /** Makes a stream known; the returned function forgets it. AlreadyExists: the namespace has one of this id. */
  register(namespace: string, id: string, stream: NamedStream): () => void {
    if (id === '' || Buffer.byteLength(id) > ID_BYTES_MAX) {
      throw invalidArgument(`the id of a stream has 1 to ${ID_BYTES_MAX} bytes`);
    }
    const key = keyOf(namespace, id);
    if (this.#open.has(key)) throw alreadyExists(`stream "${id}" already exists`, { object: id });
    this.#open.set(key, stream);
    return () => {
      if (this.#open.get(key) === stream) this.#open.delete(key);
    };
  }

  /** The stream, for the caller alone, which has to close it. NotFound: no such stream, or somebody has it. */
  take(namespace: string, id: string): NamedStream {
    const key = keyOf(namespace, id);
    const stream = this.#open.get(key);
    if (stream === undefined) throw notFound(`stream "${id}" not found`, { object: id });
    this.#open.delete(key);
    return stream;
  }
}

/** Namespaces have no slash. */
const keyOf = (namespace: string, id: string): string => `${namespace}/${id}`;
