/** containerd.services.streaming.v1.Streaming: opens streams by name, for Transfer calls. */
import { requireNamespace } from '../../context.js';
import { invalidArgument } from '../../errors.js';
import type { Call, Duplex } from '../call.js';
import type { AnyMessage } from '../messages/messages.js';
import { codecOf } from '../schema.js';
import { duplex, type Service } from '../service.js';
import { anyOf, messageIn } from './any.js';
import type { NamedStream, Streams } from './streams.js';

const INIT = 'containerd.services.streaming.v1.StreamInit';

export const streamingService = (streams: Streams): Service => ({
  name: 'containerd.services.streaming.v1.Streaming',
  codecs: { Stream: { frameResponse } },
  methods: {
    Stream: duplex((stream: Duplex<AnyMessage, AnyMessage | Buffer>, call) => serve(streams, stream, call)),
  },
});

const frameResponse = (message: unknown, bytesMax: number): Buffer =>
  Buffer.isBuffer(message) ? message : codecOf('google.protobuf.Any').frame(message, bytesMax);

/** Until the stream's user closes it, or the client is gone. */
async function serve(
  streams: Streams,
  { requests, send }: Duplex<AnyMessage, AnyMessage | Buffer>,
  call: Call,
): Promise<void> {
  const namespace = requireNamespace(call.context);
  const incoming = requests[Symbol.asyncIterator]();
  const first = await incoming.next();
  if (first.done === true) throw invalidArgument('the stream has no first message, which names it');
  const { id } = messageIn<{ id: string }>(INIT, first.value);
  const { signal } = call;
  let end: (error?: unknown) => void = () => undefined;
  const ended = new Promise<void>((resolve, reject) => {
    end = (error) => (error === undefined ? resolve() : reject(error));
  });
  // It may end before anybody waits for it.
  ended.catch(() => undefined);
  const stream: NamedStream = {
    receive: async () => {
      const { done, value } = await incoming.next();
      return done === true ? undefined : value;
    },
    send,
    close: (error) => end(error),
  };
  const forget = streams.register(namespace, id, stream);
  const gone = (): void => end();
  signal.addEventListener('abort', gone, { once: true });
  try {
    if (signal.aborted) return;
    await send(anyOf('google.protobuf.Empty', {}));
    await ended;
  } finally {
    signal.removeEventListener('abort', gone);
    forget();
  }
}
