/**
 * One ingest of a daemon: a stream of requests, each acknowledged before the next is sent. Has one owner;
 * overlapping calls run one after another. Closing keeps the progress.
 */
import type { ClientDuplexStream, ServiceError } from '@grpc/grpc-js';
import type { IngestStatus, WriterDescriptor } from '../../backends/contract.js';
import type { CallContext } from '../../context.js';
import { failedPrecondition, invalidArgument, unavailable } from '../../errors.js';
import { instantOf } from '../../server/messages/convert.js';
import { WriteAction, type WriteRequest, type WriteResponse } from '../../server/messages/messages.js';
import type { CommitOptions, ContentWriter } from '../../stores/content/content-writer.js';
import { Serial } from '../../system/serial.js';
import { type Connection, failure } from './connection.js';

/** The service, for content.ts too. */
export const CONTENT = 'containerd.services.content.v1.Content';

const CHUNK_BYTES = 1024 * 1024;

export class RemoteWriter implements ContentWriter {
  readonly ref: string;
  readonly #ctx: CallContext;
  readonly #call: ClientDuplexStream<unknown, unknown>;
  readonly #responses: AsyncIterator<unknown>;
  #status: IngestStatus;
  #digest = '';
  #ended = false;
  readonly #serial = new Serial();

  private constructor(call: ClientDuplexStream<unknown, unknown>, ctx: CallContext, ref: string) {
    this.ref = ref;
    this.#ctx = ctx;
    this.#call = call;
    this.#responses = call[Symbol.asyncIterator]();
    this.#status = { ref, offset: 0, total: 0, startedAt: 0n, updatedAt: 0n };
  }

  /** Throws the errors of the content store: AlreadyExists, Unavailable and so on. */
  static async open(
    connection: Connection,
    ctx: CallContext,
    ref: string,
    { digest = '', size = 0 }: WriterDescriptor,
  ): Promise<RemoteWriter> {
    const writer = new RemoteWriter(connection.duplex(CONTENT, 'Write', ctx), ctx, ref);
    await writer.#stat({ total: size, expected: digest });
    return writer;
  }

  status(): Promise<IngestStatus> {
    return Promise.resolve({ ...this.#status });
  }

  digest(): string {
    return this.#digest;
  }

  write(bytes: Uint8Array): Promise<number> {
    return this.#serial.run(async () => {
      for (let at = 0; at < bytes.length; at += CHUNK_BYTES) {
        const data = bytes.subarray(at, at + CHUNK_BYTES);
        await this.#ask({ action: WriteAction.write, offset: this.#status.offset, data });
      }
      return bytes.length;
    });
  }

  truncate(size: number): Promise<void> {
    return this.#serial.run(async () => {
      if (size !== 0) throw invalidArgument(`cannot cut ingest "${this.ref}" to ${size} bytes, only to 0`);
      // A write at offset 0 restarts.
      if (this.#status.offset > 0) await this.#ask({ action: WriteAction.write, offset: 0 });
    });
  }

  /** The commit waits for the disk; before that nothing is promised. */
  sync(): Promise<void> {
    return Promise.resolve();
  }

  commit(size: number, expected: string, { labels }: CommitOptions = {}): Promise<void> {
    return this.#serial.run(async () => {
      try {
        const { offset } = this.#status;
        await this.#ask({ action: WriteAction.commit, total: size, expected, offset, labels: { ...labels } });
      } finally {
        await this.#end();
      }
    });
  }

  close(): Promise<void> {
    return this.#serial.run(() => this.#end());
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #stat(given: Pick<WriteRequest, 'total' | 'expected'>): Promise<void> {
    const response = await this.#ask({ action: WriteAction.stat, ref: this.ref, ...given });
    this.#status = {
      ref: this.ref,
      offset: response.offset,
      total: response.total ?? 0,
      startedAt: instantOf(response.startedAt),
      updatedAt: instantOf(response.updatedAt),
    };
  }

  async #ask(request: Partial<WriteRequest>): Promise<WriteResponse> {
    if (this.#ended) {
      throw failedPrecondition(`writer of ingest "${this.ref}" is closed`, {
        object: this.ref,
        remedy: 'open the ref again',
      });
    }
    try {
      this.#call.write(request);
      const { value, done } = await this.#responses.next();
      if (done) throw unavailable(`the daemon ended the ingest "${this.ref}"`, { object: this.ref });
      const response = value as WriteResponse;
      this.#status.offset = response.offset;
      this.#digest = response.digest ?? this.#digest;
      return response;
    } catch (error) {
      this.#ended = true;
      throw 'code' in (error as object) ? failure(error as ServiceError, this.#ctx) : error;
    }
  }

  /** Waits until the daemon has ended the stream, which unlocks the ref. */
  async #end(): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    this.#call.end();
    try {
      for (let next = await this.#responses.next(); !next.done; next = await this.#responses.next());
    } catch {
      // A stream that ends with an error has ended, too.
    }
  }
}
