/**
 * Content.Write: one ingest, driven by a stream of requests; each gets its response before the next is read.
 * The first names the ref, which stays locked until the stream ends; what was written stays for the next
 * stream.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type { WriterDescriptor } from '../../backends/contract.js';
import type { DB } from '../../db.js';
import { alreadyExists, invalidArgument, isKind } from '../../errors.js';
import type { ContentWriter } from '../../stores/content/content-writer.js';
import type { Call, Duplex } from '../call.js';
import type { Limits } from '../limits.js';
import { timestampOf } from '../messages/convert.js';
import { WriteAction, type WriteRequest, type WriteResponse } from '../messages/messages.js';
import { outOfRange, resourceExhausted } from '../status.js';

export interface WriteHost {
  readonly store: Pick<DB['content'], 'has' | 'abort' | 'writer'>;
  readonly limits: Limits;
  /**
   * Refs whose clients have gone and that are unlocked once their bytes are on disk; by namespace and ref.
   */
  readonly closing: Map<string, Promise<void>>;
}

/**
 * Clients close a stream and reopen the ref at once, possibly before the end of the first is known here. The
 * wait for a stream that is known to be ending has no limit.
 */
const LOCKED_REF_MS = 100;
const LOCKED_REF_PAUSE_MS = 5;

export async function writeContent(
  host: WriteHost,
  { requests, send }: Duplex<WriteRequest, WriteResponse>,
  call: Call,
): Promise<void> {
  let session: WriteSession | undefined;
  try {
    for await (const request of requests) {
      session ??= await WriteSession.open(host, call, request);
      const response = await session.handle(request);
      await send(response);
      if (request.action === WriteAction.commit) return;
    }
  } finally {
    await session?.close();
  }
}

class WriteSession {
  readonly #host: WriteHost;
  readonly #call: Call;
  readonly #writer: ContentWriter;
  readonly #ref: string;
  /** As the client sent it last; 0 and '' when unknown. */
  #total: number;
  #expected: string;
  #first = true;
  /** The fields that responses repeat since the last stat. */
  #stat: Pick<WriteResponse, 'startedAt' | 'updatedAt' | 'total'> = {};
  /** Resolves when the ref is unlocked. */
  readonly #ended: Promise<void>;
  #end: (() => void) | undefined;

  private constructor(host: WriteHost, call: Call, writer: ContentWriter, request: WriteRequest) {
    this.#host = host;
    this.#call = call;
    this.#writer = writer;
    this.#ref = request.ref;
    this.#total = request.total;
    this.#expected = request.expected;
    this.#ended = new Promise((resolve) => {
      this.#end = resolve;
    });
    call.signal.addEventListener('abort', () => this.#ending(), { once: true });
    if (call.signal.aborted) this.#ending();
  }

  static async open(host: WriteHost, call: Call, request: WriteRequest): Promise<WriteSession> {
    const { ref, total, expected } = request;
    if (ref === '') throw invalidArgument('first message must have a reference');
    checkSize(host, total);
    const descriptor = { size: Math.max(0, total), digest: expected };
    return new WriteSession(host, call, await openWriter(host, call, ref, descriptor), request);
  }

  async handle(request: WriteRequest): Promise<WriteResponse> {
    const { action } = request;
    await this.#learn(request);
    const status = await this.#writer.status();
    if (action === WriteAction.stat) {
      const { startedAt, updatedAt, offset } = status;
      const times = { startedAt: timestampOf(startedAt), updatedAt: timestampOf(updatedAt) };
      this.#stat = { ...times, total: this.#total };
      return { action, offset, ...this.#stat, digest: this.#writer.digest() };
    }
    if (action !== WriteAction.write && action !== WriteAction.commit) {
      throw invalidArgument(`unknown write action ${action}`, { object: this.#ref });
    }
    const offset = await this.#append(request, status.offset);
    if (action === WriteAction.commit) {
      await this.#writer.commit(this.#total, this.#expected, { labels: request.labels });
    }
    return { action, offset, ...this.#stat, digest: this.#writer.digest() };
  }

  /** Records total and digest from a request; a blob that was created in the meantime ends the ingest. */
  async #learn({ total, expected }: WriteRequest): Promise<void> {
    const first = this.#first;
    this.#first = false;
    if (total > 0) {
      checkSize(this.#host, total);
      this.#total = total;
    }
    // The writer was opened with the first request's digest and has looked for the blob.
    if (expected === '' || first) return;
    this.#expected = expected;
    const { store: content } = this.#host;
    if (!(await content.has(this.#call.context, expected).catch(() => false))) return;
    await this.#writer.close();
    await content.abort(this.#call.context, this.#ref).catch(() => undefined);
    throw alreadyExists(`blob with expected digest ${expected} exists`, { object: expected });
  }

  /** Writes the request's bytes at its offset, which is the end, or 0 to restart; returns the new end. */
  async #append({ offset, data }: WriteRequest, end: number): Promise<number> {
    if (offset > 0 && offset !== end) {
      throw outOfRange(`write @${offset} must occur at current offset ${end}`);
    }
    if (offset < 0) throw invalidArgument(`offset ${offset} is negative`, { object: this.#ref });
    if (offset === 0 && end > 0) await this.#writer.truncate(0);
    checkSize(this.#host, offset + data.length);
    if (data.length > 0) await this.#writer.write(data);
    return offset + data.length;
  }

  /** From here on, a caller that opens the ref waits for the end of this session. */
  #ending(): void {
    if (this.#end !== undefined) this.#host.closing.set(refKey(this.#call, this.#ref), this.#ended);
  }

  async close(): Promise<void> {
    this.#ending();
    try {
      await this.#writer.close();
    } finally {
      this.#end?.();
      this.#end = undefined;
      const { closing } = this.#host;
      const key = refKey(this.#call, this.#ref);
      if (closing.get(key) === this.#ended) closing.delete(key);
    }
  }
}

const refKey = ({ context }: Call, ref: string): string => `${context.namespace}\0${ref}`;

/** Waits for a stream of the ref that is ending, but not for one that continues. */
async function openWriter(
  { store, closing }: WriteHost,
  call: Call,
  ref: string,
  descriptor: WriterDescriptor,
): Promise<ContentWriter> {
  const deadline = performance.now() + LOCKED_REF_MS;
  for (;;) {
    try {
      return await store.writer(call.context, ref, descriptor);
    } catch (error) {
      if (!isKind(error, 'Unavailable')) throw error;
      const ending = closing.get(refKey(call, ref));
      if (ending !== undefined) await ending;
      else if (performance.now() < deadline) await sleep(LOCKED_REF_PAUSE_MS);
      else throw error;
    }
  }
}

function checkSize({ limits }: WriteHost, bytes: number): void {
  if (bytes <= limits.ingestBytes) return;
  throw resourceExhausted(`an ingest of ${bytes} bytes is over the limit of ${limits.ingestBytes}`);
}
