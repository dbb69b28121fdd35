/**
 * HTTP/2 settings that the gRPC library has no option for: how much a client may send before it waits for leave (with
 * HTTP/2's 64 KiB a message of 1 MiB waits sixteen times), and how large a call's headers may be. And a hole of the
 * library's is closed: see guardStreams.
 *
 * Reaches into the library's server: its settings for the HTTP/2 server before that is made, then the HTTP/2 server
 * itself. Tests look at what clients are told and send what would end the process, so they tell when a new version of
 * the library is different.
 */
import type { Http2Server, ServerHttp2Stream, ServerOptions } from 'node:http2';
import type { Server } from '@grpc/grpc-js';
import type { Limits } from './limits.js';

/** Bytes in flight of one call, and of all calls of a connection. */
const STREAM_WINDOW_BYTES = 4 * 2 ** 20;
const CONNECTION_WINDOW_BYTES = 16 * 2 ** 20;

interface Internals {
  commonServerOptions?: ServerOptions;
  http2Servers?: Map<Http2Server, unknown>;
}

/** Call before the server makes its HTTP/2 server. */
export function presetHttp2(server: Server, limits: Limits): void {
  const { commonServerOptions } = server as unknown as Internals;
  if (commonServerOptions === undefined) return;
  commonServerOptions.settings = {
    ...commonServerOptions.settings,
    initialWindowSize: STREAM_WINDOW_BYTES,
    maxHeaderListSize: limits.metadataBytes,
  };
}

/** Call afterwards. */
export function hardenHttp2(server: Server): void {
  const { http2Servers } = server as unknown as Internals;
  for (const http2 of http2Servers?.keys() ?? []) {
    http2.on('session', (session) => session.setLocalWindowSize(CONNECTION_WINDOW_BYTES));
    guardStreams(http2);
  }
}

/**
 * The library answers some calls (unknown methods, wrong content types) without looking whether the client has reset
 * them already, and listens to the first error of a stream only: the exception of the one and the second of the other
 * would end the process, so whoever sends the right nonsense could.
 */
function guardStreams(http2: Http2Server): void {
  const handlers = http2.listeners('stream');
  http2.removeAllListeners('stream');
  http2.on('stream', (stream: ServerHttp2Stream, ...rest: unknown[]) => {
    // An error is the end of the call; the library learns of it by the stream's close.
    stream.on('error', () => undefined);
    if (stream.destroyed) return;
    try {
      for (const handler of handlers) handler.call(http2, stream, ...rest);
    } catch {
      stream.destroy();
    }
  });
}
