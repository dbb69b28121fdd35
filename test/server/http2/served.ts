/** The transport on a socket that calls functions of the test. For tests only. */
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import type { Call, Duplex, Send } from '../../../src/server/call.js';
import { Endpoint } from '../../../src/server/connections/endpoint.js';
import { type Limits, limitsOf } from '../../../src/server/limits.js';
import type { WriteRequest, WriteResponse } from '../../../src/server/messages/messages.js';
import { sharedOf } from '../../../src/server/rpc-server.js';
import { methodsOf } from '../../../src/server/schema.js';
import { duplex, list, stream, unary } from '../../../src/server/service.js';
import { tempDir } from '../../support/db.js';
import { services } from '../client.js';

export interface Functions {
  info(request: { digest: string }, call: Call): Promise<unknown> | unknown;
  read(request: { digest: string; size: number }, call: Call, send: Send<unknown>): Promise<void>;
  write(stream: Duplex<WriteRequest, WriteResponse>, call: Call): Promise<void>;
  statuses(request: { filters: string[] }, call: Call): Promise<Iterable<unknown>> | Iterable<unknown>;
}

export interface Served {
  endpoint: Endpoint;
  address: string;
  /** Ends of calls: method and code. */
  ends: string[];
  /** Why connections were ended by the server. */
  reasons: string[];
  /** Bytes that the server keeps for its clients. */
  kept(): number;
}

export const paths = {
  info: `/${services.content}/Info`,
  read: `/${services.content}/Read`,
  write: `/${services.content}/Write`,
  /** In the definition and without a function. */
  list: `/${services.content}/List`,
  statuses: `/${services.content}/ListStatuses`,
} as const;

const method = (name: string) => methodsOf(services.content).get(name)!;
export const infoRequest = (digest: string): Buffer => method('Info').request.encode({ digest });
export const readRequest = (digest: string, size: number): Buffer =>
  method('Read').request.encode({ digest, size });
export const writeRequest = (ref: string, data = Buffer.alloc(0)): Buffer =>
  method('Write').request.encode({ ref, data });
export const statusesOf = (framed: Buffer): { ref: string }[] =>
  (method('ListStatuses').response.decode(framed.subarray(5)) as { statuses: { ref: string }[] }).statuses;
export const infoOf = (framed: Buffer): unknown => method('Info').response.decode(framed.subarray(5));

/** Returns what it was asked for, sends as many bytes as wanted, repeats what is written. */
export const echo: Functions = {
  info: ({ digest }) => ({ info: { digest } }),
  read: async ({ size }, _call, send) => {
    for (let left = size; left > 0; left -= 2 ** 20) {
      await send({ data: Buffer.alloc(Math.min(left, 2 ** 20), 'r') });
    }
  },
  write: async ({ requests, send }) => {
    for await (const { ref, data } of requests) {
      await send({ action: 0, digest: ref, offset: data.length } as WriteResponse);
    }
  },
  statuses: () => [],
};

/** Takes nothing and returns nothing until the client gives up. */
export const hang: Functions['write'] = (_stream, { signal }) =>
  new Promise((resolve) => {
    signal.addEventListener('abort', () => resolve(), { once: true });
  });

export async function served(
  t: TestContext,
  functions: Partial<Functions> = {},
  limits: Partial<Limits> = {},
): Promise<Served> {
  const { info, read, write, statuses } = { ...echo, ...functions };
  const ends: string[] = [];
  const reasons: string[] = [];
  const all = limitsOf({ shutdownMs: 500, ...limits });
  const shared = sharedOf(all);
  const endpoint = await Endpoint.open(
    join(await tempDir(t, 'ebbtide-http2-'), 's.sock'),
    all,
    [
      {
        name: services.content,
        methods: {
          Info: unary(info as never),
          Read: stream(read as never),
          Write: duplex(write as never),
          ListStatuses: list('statuses', statuses as never),
        },
      },
    ],
    {
      observe: (_service, name) => (code) => ends.push(`${name} ${code}`),
      refused: (reason) => reasons.push(reason),
      shared,
    },
  );
  t.after(() => endpoint.stop(0));
  return { endpoint, address: endpoint.address, ends, reasons, kept: () => shared.ledger.bytes };
}
