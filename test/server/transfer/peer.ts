/** A client's side of named streams: opens them, sends an archive as it is asked for, collects what comes. For the tests here. */
import type { ServiceError } from '@grpc/grpc-js';
import { anyOf, messageIn, typeOf } from '../../../src/server/transfer/any.js';
import type { Message, TestClient } from '../client.js';

const DATA = 'containerd.types.transfer.Data';
const UPDATE = 'containerd.types.transfer.WindowUpdate';
const PROGRESS = 'containerd.types.transfer.Progress';

export class PeerStream {
  readonly call: ReturnType<TestClient['duplex']>;
  readonly #incoming: AsyncIterator<Message>;

  private constructor(client: TestClient) {
    this.call = client.duplex('streaming', 'Stream');
    this.call.on('error', () => undefined);
    this.#incoming = this.call[Symbol.asyncIterator]();
  }

  static async open(client: TestClient, id: string): Promise<PeerStream> {
    const stream = new PeerStream(client);
    stream.call.write(anyOf('containerd.services.streaming.v1.StreamInit', { id }));
    await stream.next();
    return stream;
  }

  /** The next message; undefined at the end. Rejects with the code of the stream's error. */
  async next(): Promise<Message | undefined> {
    const { done, value } = await this.#incoming.next();
    return done === true ? undefined : value;
  }

  /** How the stream ends, with what was not read yet. */
  async end(): Promise<number> {
    try {
      for (let next = await this.next(); next !== undefined; next = await this.next());
      return 0;
    } catch (error) {
      return (error as ServiceError).code;
    }
  }

  send(bytes: Uint8Array): void {
    this.call.write(anyOf(DATA, { data: bytes }));
  }

  grant(bytes: number): void {
    this.call.write(anyOf(UPDATE, { update: bytes }));
  }

  /** Sends an archive, never more than it was asked for, and closes its side. Whether all of it was asked for. */
  async sendAll(bytes: Uint8Array): Promise<boolean> {
    const isSent = await this.sendOpen(bytes);
    if (isSent) this.call.end();
    return isSent;
  }

  /** As `sendAll`, without closing. */
  async sendOpen(bytes: Uint8Array): Promise<boolean> {
    for (let done = 0, window = 0; done < bytes.length; ) {
      while (window === 0) {
        const message = await this.next();
        if (message === undefined) return false;
        window += messageIn<{ update: number }>(UPDATE, message).update;
      }
      const end = Math.min(bytes.length, done + Math.min(window, 32 * 1024));
      this.send(bytes.subarray(done, end));
      window -= end - done;
      done = end;
    }
    return true;
  }

  /** Receives an archive, granting `window` bytes at a time; says the most that came unasked for. */
  async receiveAll(window: number): Promise<{ bytes: Buffer; beyond: number }> {
    const parts: Buffer[] = [];
    let granted = window;
    let beyond = 0;
    this.grant(window);
    for (let message = await this.next(); message !== undefined; message = await this.next()) {
      const { data } = messageIn<{ data: Buffer }>(DATA, message);
      granted -= data.length;
      beyond = Math.max(beyond, -granted);
      parts.push(Buffer.from(data));
      if (granted === 0) {
        granted = window;
        this.grant(window);
      }
    }
    return { bytes: Buffer.concat(parts), beyond };
  }

  /** Events of a progress stream until it ends: `saved name`. */
  async progress(): Promise<string[]> {
    const events: string[] = [];
    for (let message = await this.next(); message !== undefined; message = await this.next()) {
      const { event, name } = messageIn<{ event: string; name: string }>(PROGRESS, message);
      events.push(name === '' ? event : `${event} ${name}`);
    }
    return events;
  }
}

const image = 'containerd.types.transfer.ImageStore';
export const store = (fields: object): Message => anyOf(image, fields);
export const importFrom = (stream: string, fields: object = {}): Message =>
  anyOf('containerd.types.transfer.ImageImportStream', { stream, ...fields });
export const exportTo = (stream: string, fields: object = {}): Message =>
  anyOf('containerd.types.transfer.ImageExportStream', { stream, ...fields });
export const isData = (message: Message): boolean => typeOf(message) === DATA;
export const registry = (reference: string, resolver: object = {}): Message =>
  anyOf('containerd.types.transfer.OCIRegistry', { reference, resolver });

/** Answers a daemon's questions for credentials; what it was asked, in order. */
export async function answerCredentials(client: TestClient, id: string, answer: object): Promise<string[]> {
  const asked: string[] = [];
  const stream = await PeerStream.open(client, id);
  const listen = async (): Promise<void> => {
    for (let message = await stream.next(); message !== undefined; message = await stream.next()) {
      const { host, reference } = messageIn<{ host: string; reference: string }>(
        'containerd.types.transfer.AuthRequest',
        message,
      );
      asked.push(`${host} ${reference}`);
      stream.call.write(anyOf('containerd.types.transfer.AuthResponse', answer));
    }
  };
  void listen().catch(() => undefined);
  return asked;
}
