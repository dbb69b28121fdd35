/** gRPC over HTTP/2, as grpc/doc/PROTOCOL-HTTP2.md has it, by hand-made requests and by a real client. */
import assert from 'node:assert/strict';
import { type TestContext, test } from 'node:test';
import { deflateSync, gzipSync } from 'node:zlib';
import { Client, credentials, Metadata, type ServiceError } from '@grpc/grpc-js';
import { invalidArgument, notFound } from '../../../src/errors.js';
import { Flag, FrameType } from '../../../src/server/http2/constants.js';
import {
  block,
  data,
  type Fields,
  frame,
  message,
  open,
  Peer,
  request,
  requestFields,
  uint32,
} from './peer.js';
import { infoOf, infoRequest, paths, readRequest, served, writeRequest } from './served.js';

const digestOf = (body: Buffer): string => (infoOf(body) as { info: { digest: string } }).info.digest;
const ended = (id: number, fields: Fields): Buffer => frame(FrameType.headers, 5, id, block(fields));

async function client(t: TestContext, address: string): Promise<Client> {
  const made = new Client(`unix:${address}`, credentials.createInsecure(), {
    'grpc.use_local_subchannel_pool': 1,
  });
  t.after(() => made.close());
  return made;
}
const pass = (bytes: Buffer): Buffer => bytes;
const unary = (grpc: Client, path: string, body: Buffer, more: object = {}): Promise<Buffer> =>
  new Promise((resolve, reject) => {
    grpc.makeUnaryRequest(path, pass, pass, body, new Metadata(), more, (error, response) =>
      error ? reject(error) : resolve(response!),
    );
  });
const failure = (promise: Promise<unknown>): Promise<ServiceError> =>
  promise.then(
    () => assert.fail('the call succeeded'),
    (error: ServiceError) => error,
  );

test('what is not gRPC, not a method, or asks for what is not there', async (t) => {
  const { address, ends } = await served(t);
  const peer = await Peer.connect(t, address);
  const changed = (name: string, value: string): Fields =>
    requestFields(paths.info).map(([key, old]) => [key, key === name ? value : old] as const);
  const http: [Fields, string][] = [
    [changed('content-type', 'application/json'), '415'],
    [changed('content-type', 'application/grpcish'), '415'],
    [changed('content-type', ''), '415'],
    [changed(':method', 'GET'), '405'],
  ];
  let id = -1;
  for (const [fields, status] of http) {
    id += 2;
    peer.send(ended(id, fields));
    assert.equal((await peer.response(id)).headers[':status'], status);
  }
  const grpc: [Fields, string, RegExp][] = [
    [requestFields('/no.such/Method'), '12', /does not implement the method \/no\.such\/Method/],
    [requestFields(paths.list), '12', /does not implement/],
    [requestFields('*'), '12', /does not implement/],
    [requestFields(paths.info, [['grpc-encoding', 'snappy']]), '12', /encoding: snappy/],
    [requestFields(paths.info, [['grpc-timeout', 'soon']]), '13', /timeout/],
    [requestFields(paths.info, [['grpc-timeout', '123456789S']]), '13', /timeout/],
  ];
  for (const [fields, status, text] of grpc) {
    id += 2;
    peer.send(ended(id, fields));
    const { headers, body } = await peer.response(id);
    assert.deepEqual([headers[':status'], headers['grpc-status'], body.length], ['200', status, 0]);
    assert.match(headers['grpc-message']!, text);
    if (text.source.includes('snappy')) {
      assert.equal(headers['grpc-accept-encoding'], 'identity,deflate,gzip');
    }
  }
  // The response comes before the request is whole: it says that the rest is not wanted.
  id += 2;
  peer.send(frame(FrameType.headers, Flag.endHeaders, id, block(requestFields('/no.such/Method'))));
  assert.equal((await peer.response(id)).status, '12');
  assert.equal(await peer.reset(id), 0);
  peer.send(data(id, Buffer.alloc(100)), data(id, Buffer.alloc(0), true));
  for (const type of ['application/grpc+proto', 'application/grpc;charset=utf-8']) {
    id += 2;
    peer.send(
      frame(FrameType.headers, Flag.endHeaders, id, block(changed('content-type', type))),
      data(id, message(infoRequest(type)), true),
    );
    assert.equal(digestOf((await peer.response(id)).body), type);
  }
  assert.deepEqual(ends, ['Info 0', 'Info 0']);
});

test('messages: in pieces, compressed, too few, too many, too large, damaged', async (t) => {
  const { address } = await served(t, {}, { messageBytes: 1000 });
  const peer = await Peer.connect(t, address);
  let id = -1;
  const ask = async (path: string, more: Fields, ...bodies: Buffer[]) => {
    id += 2;
    peer.send(open(id, path, more), ...bodies.map((b) => data(id, b)), data(id, Buffer.alloc(0), true));
    return peer.response(id);
  };
  const good = message(infoRequest('good'));
  for (let cut = 0; cut <= good.length; cut++) {
    const response = await ask(paths.info, [], good.subarray(0, cut), good.subarray(cut));
    assert.equal(digestOf(response.body), 'good');
  }
  for (const [encoding, encode] of [
    ['gzip', gzipSync],
    ['deflate', deflateSync],
  ] as const) {
    const packed = message(encode(infoRequest(encoding)), true);
    const more: Fields = [['grpc-encoding', encoding]];
    assert.equal(digestOf((await ask(paths.info, more, packed)).body), encoding);
    // Not every message of such a call has to be compressed.
    assert.equal(digestOf((await ask(paths.info, more, good)).body), 'good');
    const stream = await ask(
      paths.write,
      more,
      message(encode(writeRequest('a')), true),
      message(writeRequest('b')),
    );
    assert.equal(stream.status, '0');
    const bomb = message(encode(Buffer.alloc(100_000)), true);
    assert.equal((await ask(paths.info, more, bomb)).status, '8');
    assert.equal((await ask(paths.write, more, bomb)).status, '8');
    assert.equal((await ask(paths.info, more, message(Buffer.from('no'), true))).status, '13');
  }
  assert.equal((await ask(paths.info, [], message(gzipSync(Buffer.alloc(1)), true))).status, '13');
  assert.equal((await ask(paths.info, [])).status, '13');
  assert.equal((await ask(paths.info, [], good, good)).status, '13');
  assert.equal((await ask(paths.info, [], good.subarray(0, 7))).status, '13');
  assert.equal((await ask(paths.write, [], good.subarray(0, 3))).status, '13');
  assert.equal((await ask(paths.info, [], message(Buffer.of(0x0a, 0xff)))).status, '13');
  assert.equal((await ask(paths.write, [], message(Buffer.of(0x0a, 0xff)))).status, '13');
  assert.equal((await ask(paths.info, [], message(Buffer.alloc(1001)))).status, '8');
  assert.equal((await ask(paths.write, [], message(Buffer.alloc(1001)))).status, '8');
  assert.equal((await ask(paths.read, [], message(readRequest('d', 2000)))).status, '8');
  assert.equal((await ask(paths.info, [], message(infoRequest('x'.repeat(990))))).status, '0');
});

test('errors: texts in any script, and none of it breaks headers', async (t) => {
  const texts = [' spaces ', '100% "sure"\r\n', 'größer, 日本, 🎈', '', 'x'.repeat(20_000)];
  const { address } = await served(t, {
    info: ({ digest }) => {
      throw invalidArgument(texts[Number(digest)]!);
    },
    read: async () => {
      throw notFound('blob "b" not found');
    },
    write: async ({ requests, send }) => {
      for await (const { ref } of requests) {
        await send({ action: 0, digest: ref } as never);
        throw notFound('gone not found');
      }
    },
  });
  const grpc = await client(t, address);
  for (const [i, text] of texts.entries()) {
    const { code, details } = await failure(unary(grpc, paths.info, infoRequest(String(i))));
    assert.equal(code, 3);
    const whole = text === '' ? 'invalid argument' : `${text}: invalid argument`;
    assert.equal(details, whole.slice(0, 6144));
  }
  const peer = await Peer.connect(t, address);
  peer.send(request(1, paths.read, readRequest('d', 1)));
  const only = await peer.response(1);
  assert.deepEqual(only.headers, {
    ':status': '200',
    'content-type': 'application/grpc',
    'grpc-status': '5',
    'grpc-message': 'blob "b": not found',
  });
  peer.send(open(3, paths.write), data(3, message(writeRequest('r'))));
  const after = await peer.response(3);
  assert.deepEqual(
    [after.body.length > 5, after.headers],
    [true, { 'grpc-status': '5', 'grpc-message': 'gone: not found' }],
  );
  // The call is over though the client has not said its last.
  assert.equal(await peer.reset(3), 0);
});

test('namespace and lease come with the headers: the first of two, and what is before a comma', async (t) => {
  const seen: unknown[] = [];
  const { address } = await served(t, {
    info: ({ digest }, { context }) => {
      seen.push([context.namespace, context.lease]);
      return { info: { digest } };
    },
  });
  const peer = await Peer.connect(t, address);
  const headers: Fields[] = [
    [],
    [['containerd-namespace', 'a']],
    [
      ['containerd-namespace', 'new'],
      ['containerd-namespace', 'old'],
      ['containerd-lease', 'l'],
    ],
    [['containerd-namespace', 'new, old']],
    [
      ['grpc-trace-bin', '!! no base64 !!'],
      ['containerd-lease', 'm'],
    ],
  ];
  for (const [i, more] of headers.entries()) {
    peer.send(request(2 * i + 1, paths.info, infoRequest('x'), more));
    assert.equal((await peer.response(2 * i + 1)).status, '0');
  }
  assert.deepEqual(seen, [
    [undefined, undefined],
    ['a', undefined],
    ['new', 'l'],
    ['new', undefined],
    [undefined, 'm'],
  ]);
});

test('a deadline ends the call on both sides; so does a client that gives up or goes away', async (t) => {
  const signals: boolean[] = [];
  let started: () => void = () => undefined;
  const hang = async (call: { signal: AbortSignal }): Promise<never> => {
    started();
    await new Promise<void>((resolve) =>
      call.signal.addEventListener('abort', () => resolve(), { once: true }),
    );
    signals.push(call.signal.aborted);
    throw call.signal.reason;
  };
  const { address, ends } = await served(t, {
    info: (_request, call) => hang(call),
    read: (_request, call) => hang(call),
    write: async ({ requests }) => {
      for await (const _ of requests) started();
    },
  });
  const peer = await Peer.connect(t, address);
  let id = 1;
  for (const path of [paths.info, paths.read]) {
    for (const timeout of ['1n', '20m']) {
      peer.send(request(id, path, infoRequest('x'), [['grpc-timeout', timeout]]));
      assert.equal((await peer.response(id)).status, '4');
      id += 2;
    }
  }
  peer.send(open(id, paths.write, [['grpc-timeout', '1m']]));
  assert.equal((await peer.response(id)).status, '4');
  const grpc = await client(t, address);
  assert.equal(
    (await failure(unary(grpc, paths.info, infoRequest('x'), { deadline: Date.now() + 1000 }))).code,
    4,
  );
  assert.equal(signals.length >= 4, true);

  const begun = (): Promise<void> =>
    new Promise((resolve) => {
      started = resolve;
    });
  const wanted = async (count: number): Promise<void> => {
    while (ends.length < count) await new Promise((done) => setTimeout(done, 2));
  };
  await wanted(6);
  for (const path of [paths.info, paths.read, paths.write]) {
    for (const how of ['reset', 'close']) {
      const before = ends.length;
      const quitter = await Peer.connect(t, address);
      const starting = begun();
      if (path === paths.write) quitter.send(open(1, path), data(1, message(writeRequest('r'))));
      else quitter.send(request(1, path, infoRequest('x')));
      await starting;
      if (how === 'reset') quitter.send(frame(FrameType.reset, 0, 1, uint32(8)));
      else quitter.socket.destroy();
      await wanted(before + 1);
    }
  }
  // The first six have had their deadline; all are reported as given up.
  assert.deepEqual(new Set(ends.map((end) => end.split(' ')[1])), new Set(['1']));
  assert.equal(ends.length, 12);
});

test('a service may throw anything, at once or later, and return nothing that can be sent', async (t) => {
  const { address } = await served(t, {
    info: ({ digest }) => {
      if (digest === 'now') throw new TypeError('a bug');
      if (digest === 'later') return Promise.reject(new TypeError('a bug'));
      if (digest === 'odd') throw undefined;
      return { info: { digest: { no: 'string' } } };
    },
    read: () => {
      throw new TypeError('a bug');
    },
    write: () => {
      throw new TypeError('a bug');
    },
  });
  const peer = await Peer.connect(t, address);
  let id = 1;
  for (const digest of ['now', 'later', 'odd', 'unwritable']) {
    peer.send(request(id, paths.info, infoRequest(digest)));
    assert.equal((await peer.response(id)).status, '2', digest);
    id += 2;
  }
  for (const path of [paths.read, paths.write]) {
    peer.send(request(id, path, infoRequest('x')));
    assert.equal((await peer.response(id)).status, '2', path);
    id += 2;
  }
});

test('thirty-two clients at once, each with calls of every kind', async (t) => {
  const { address, ends } = await served(t);
  const clients = await Promise.all(Array.from({ length: 32 }, () => client(t, address)));
  await Promise.all(
    clients.map(async (grpc, n) => {
      for (let i = 0; i < 20; i++) {
        const text = `${n}/${i}`;
        const [info, read, write] = await Promise.all([
          unary(grpc, paths.info, infoRequest(text)),
          new Promise<number>((resolve, reject) => {
            let bytes = 0;
            grpc
              .makeServerStreamRequest(paths.read, pass, pass, readRequest('d', 300_000))
              .on('data', (chunk: Buffer) => {
                bytes += chunk.length;
              })
              .on('error', reject)
              .on('end', () => resolve(bytes));
          }),
          new Promise<number>((resolve, reject) => {
            let count = 0;
            const stream = grpc.makeBidiStreamRequest(paths.write, pass, pass);
            stream.on('data', () => ++count === 3 && stream.end());
            stream.on('error', reject).on('end', () => resolve(count));
            for (let k = 0; k < 3; k++) stream.write(writeRequest(text, Buffer.alloc(50_000, k)));
          }),
        ]);
        assert.equal(digestOf(Buffer.concat([Buffer.alloc(5), info])), text);
        assert.deepEqual([read > 300_000, write], [true, 3]);
      }
    }),
  );
  assert.equal(ends.length, 32 * 20 * 3);
});
