/**
 * The content store of a daemon: blobs and ingests, by the calls that containerd's clients use. Called by
 * store.ts.
 */
import type { BlobReader, ContentInfo, IngestStatus, WriterDescriptor } from '../../backends/contract.js';
import type { CallContext } from '../../context.js';
import { instantOf } from '../../server/messages/convert.js';
import type {
  ContentInfoMessage,
  IngestStatusMessage,
  ReadResponse,
} from '../../server/messages/messages.js';
import type { ContentInput } from '../../stores/content/content.js';
import type { ContentWriter } from '../../stores/content/content-writer.js';
import type { Blobs } from '../store.js';
import type { Connection } from './connection.js';
import { CONTENT, RemoteWriter } from './content-writer.js';

export class RemoteContent implements Blobs {
  readonly #connection: Connection;

  constructor(connection: Connection) {
    this.#connection = connection;
  }

  async info(ctx: CallContext, digest: string): Promise<ContentInfo> {
    const { info } = await this.#unary<{ info: ContentInfoMessage }>(ctx, 'Info', { digest });
    return infoOf(info);
  }

  async update(
    ctx: CallContext,
    { digest, labels = {} }: ContentInput,
    ...paths: string[]
  ): Promise<ContentInfo> {
    const request = { info: { digest, labels }, ...(paths.length > 0 && { updateMask: { paths } }) };
    const { info } = await this.#unary<{ info: ContentInfoMessage }>(ctx, 'Update', request);
    return infoOf(info);
  }

  async walk(
    ctx: CallContext,
    fn: (info: ContentInfo) => Promise<void> | void,
    ...filters: string[]
  ): Promise<void> {
    const batches = this.#connection.stream<{ info: ContentInfoMessage[] }>(
      CONTENT,
      'List',
      { filters },
      ctx,
    );
    for await (const { info } of batches) for (const one of info) await fn(infoOf(one));
  }

  async delete(ctx: CallContext, digest: string): Promise<void> {
    await this.#unary(ctx, 'Delete', { digest });
  }

  async listStatuses(ctx: CallContext, ...filters: string[]): Promise<IngestStatus[]> {
    const statuses = await this.#connection.list<IngestStatusMessage>(
      'statuses',
      'Ingests',
      { filters },
      ctx,
    );
    return statuses.map(statusOf);
  }

  async abort(ctx: CallContext, ref: string): Promise<void> {
    await this.#unary(ctx, 'Abort', { ref });
  }

  async readerAt(ctx: CallContext, content: string | { readonly digest: string }): Promise<BlobReader> {
    const digest = typeof content === 'string' ? content : content.digest;
    const { size } = await this.info(ctx, digest);
    return new RemoteReader(this.#connection, ctx, digest, size);
  }

  writer(ctx: CallContext, ref: string, descriptor: WriterDescriptor = {}): Promise<ContentWriter> {
    return RemoteWriter.open(this.#connection, ctx, ref, descriptor);
  }

  #unary<T>(ctx: CallContext, method: string, request: object): Promise<T> {
    return this.#connection.unary<T>(CONTENT, method, request, ctx);
  }
}

class RemoteReader implements BlobReader {
  readonly size: number;
  readonly #connection: Connection;
  readonly #ctx: CallContext;
  readonly #digest: string;

  constructor(connection: Connection, ctx: CallContext, digest: string, size: number) {
    this.#connection = connection;
    this.#ctx = ctx;
    this.#digest = digest;
    this.size = size;
  }

  async read(buffer: Uint8Array, position: number): Promise<number> {
    let filled = 0;
    for await (const chunk of this.stream(position, position + buffer.length)) {
      buffer.set(chunk.subarray(0, buffer.length - filled), filled);
      filled += chunk.length;
    }
    return Math.min(filled, buffer.length);
  }

  async *stream(start = 0, end = this.size): AsyncIterable<Uint8Array> {
    const stop = Math.min(end, this.size);
    if (start >= stop) return;
    const request = { digest: this.#digest, offset: start, size: stop - start };
    const pieces = this.#connection.stream<ReadResponse>(CONTENT, 'Read', request, this.#ctx);
    for await (const { data } of pieces) yield data;
  }

  /** Every read is a call of its own, so there is nothing to release. */
  close(): Promise<void> {
    return Promise.resolve();
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

const infoOf = ({ digest, size = 0, createdAt, updatedAt, labels }: ContentInfoMessage): ContentInfo => ({
  digest,
  size,
  createdAt: instantOf(createdAt),
  updatedAt: instantOf(updatedAt),
  labels,
});

const statusOf = ({
  ref,
  offset,
  total,
  expected,
  startedAt,
  updatedAt,
}: IngestStatusMessage): IngestStatus => ({
  ref,
  offset,
  total,
  ...(expected !== '' && { expected }),
  startedAt: instantOf(startedAt),
  updatedAt: instantOf(updatedAt),
});
