/**
 * The bytes of an archive over a named stream, in messages of at most 32 KiB. Whoever receives says how much may be sent, in window
 * updates, so neither end keeps more than a window. Used by transfer.ts.
 */
import { canceled, invalidArgument, present } from '../../errors.js';
import { anyOf, messageIn } from './any.js';
import { DATA, DATA_HEAD_BYTES, frameData } from './data-frames.js';
import type { NamedStream } from './streams.js';

const UPDATE = 'containerd.types.transfer.WindowUpdate';
const MESSAGE_BYTES_MAX = 32 * 1024;
/** Asked for at a time, when less than as much may still come: four times containerd's, which saves most of the updates. */
const WINDOW_BYTES = 256 * 1024;
/** What a client may grant in all, beyond which it cannot mean it. */
const GRANTED_MAX = 2 ** 31 - 1;

/** What a client sends, until it has sent all. InvalidArgument: something else, or more than it may. */
export async function* received(stream: NamedStream): AsyncGenerator<Uint8Array, void, void> {
  const update = anyOf(UPDATE, { update: WINDOW_BYTES });
  for (let window = 0; ; ) {
    if (window < WINDOW_BYTES) {
      await stream.send(update);
      window += WINDOW_BYTES;
    }
    const message = await stream.receive();
    if (message === undefined) return;
    const { data } = messageIn<{ data: Uint8Array }>(DATA, message);
    window -= data.length;
    if (window < 0) throw invalidArgument('the stream has more bytes than were asked for');
    if (data.length > 0) yield data;
  }
}

/** Sends bytes as the client asks for them. */
export class ByteSender {
  readonly #stream: NamedStream;
  #window = 0;
  #failure: unknown;
  #wake: (() => void) | undefined;
  /** Of messages; one is filled while the other is on its way. */
  readonly #buffers = [0, 1].map(() => Buffer.allocUnsafeSlow(DATA_HEAD_BYTES + MESSAGE_BYTES_MAX));
  readonly #sent: Promise<void>[] = [];
  #messages = 0;

  constructor(stream: NamedStream) {
    this.#stream = stream;
    void this.#listen();
  }

  /** Resolves when nobody needs the bytes any more. Rejects when the client is gone, or does not want more. */
  async send(bytes: Uint8Array): Promise<void> {
    for (let done = 0; done < bytes.length; ) {
      while (this.#window === 0) {
        if (this.#failure !== undefined) throw this.#failure;
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
      }
      const end = done + Math.min(MESSAGE_BYTES_MAX, this.#window, bytes.length - done);
      this.#window -= end - done;
      await this.#message(bytes.subarray(done, end));
      done = end;
    }
  }

  async #message(bytes: Uint8Array): Promise<void> {
    const turn = this.#messages++ % this.#buffers.length;
    await this.#sent[turn];
    const buffer = present(this.#buffers[turn], 'a buffer for a message');
    buffer.set(bytes, DATA_HEAD_BYTES);
    const sent = this.#stream.send(frameData(buffer, bytes.length));
    // Thrown where it is awaited.
    sent.catch(() => undefined);
    this.#sent[turn] = sent;
  }

  /** Resolves when all is sent. */
  async flush(): Promise<void> {
    await Promise.all(this.#sent);
  }

  async #listen(): Promise<void> {
    try {
      for (;;) {
        const message = await this.#stream.receive();
        if (message === undefined) throw canceled('the client wants no more bytes');
        const granted = messageIn<{ update: number }>(UPDATE, message).update;
        this.#window = Math.min(GRANTED_MAX, this.#window + Math.max(0, granted));
        this.#wake?.();
      }
    } catch (error) {
      this.#failure = error;
      this.#wake?.();
    }
  }
}
