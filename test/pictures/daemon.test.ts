/** Pictures from a daemon: over its own API, and the page beside its metrics. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request } from 'node:http';
import { connect, type Socket } from 'node:net';
import { test } from 'node:test';
import { RemoteStore } from '../../src/cli/remote/store.js';
import { isKind } from '../../src/errors.js';
import { importImage } from '../../src/images/import.js';
import { openDB } from '../../src/open.js';
import { fileFormats } from '../../src/pictures/draw.js';
import { contentPolicy } from '../../src/pictures/html.js';
import { Pictures } from '../../src/server/pictures.js';
import { layout } from '../cli/support.js';
import { world } from '../server/world.js';
import { testDB } from '../support/db.js';

async function whole(pieces: AsyncIterable<string>): Promise<string> {
  let text = '';
  for await (const piece of pieces) text += piece;
  return text;
}

/** Without the time, which is that of each. */
const timeless = (text: string): string =>
  text.replace(/"(createdAt|timestamp|at)":("[^"]*"|\d+)/g, '"$1":0').replace(/"(free|used)":\d+/g, '"$1":0');

interface Answer {
  status: number;
  headers: Record<string, string | string[] | undefined>;
  body: string;
}

/** `fetch` sets the name of the host itself. */
function ask(address: string, headers: Record<string, string> = {}, method = 'GET'): Promise<Answer> {
  return new Promise((resolve, reject) => {
    request(`http://${address}/view`, { method, headers }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (text: string) => {
        body += text;
      });
      response.on('end', () => resolve({ status: response.statusCode!, headers: response.headers, body }));
    })
      .on('error', reject)
      .end();
  });
}

test('given a daemon, when a picture is asked for, then it is that of the store', async (t) => {
  const { root, daemon } = await world(t);
  {
    await using remote = await RemoteStore.connect(daemon.address);
    await importImage(remote, { namespace: 'test' }, (await layout(t)).path);
    for (const format of [...fileFormats, 'html'] as const) {
      const options = { format, disk: false };
      await using db = await openDB({ root, readOnly: true, log: () => undefined });
      assert.equal(
        timeless(await whole(remote.picture({}, options))),
        timeless(await whole(db.picture({}, options))),
        format,
      );
    }
    await assert.rejects(whole(remote.picture({}, { format: 'svg' as 'json' })), (error) =>
      isKind(error, 'InvalidArgument'),
    );
  }
});

test('given the page beside the metrics, when it is asked for, then only users of this host get it', async (t) => {
  const { daemon } = await world(t, { metrics: '127.0.0.1:0' });
  const address = daemon.metricsAddress!;
  const { status, headers, body } = await ask(address);
  assert.equal(status, 200);
  assert.match(body, /^<!doctype html>/);
  assert.equal(headers['content-security-policy'], `${await contentPolicy()}; frame-ancestors 'none'`);
  assert.match(String(headers['content-security-policy']), /default-src 'none'; script-src 'sha256-/);
  assert.equal(headers['x-content-type-options'], 'nosniff');
  for (const host of [
    'evil.example',
    'localhost.evil.example',
    '127.0.0.1.evil.example',
    '[::1].evil.example',
  ])
    assert.equal((await ask(address, { host })).status, 403, host);
  for (const host of ['localhost', 'localhost:9464', '[::1]:9464', '127.0.0.1'])
    assert.equal((await ask(address, { host })).status, 200, host);
  const port = address.split(':')[1];
  assert.equal((await ask(address, {}, 'POST')).status, 405);
  assert.deepEqual(await ask(address, {}, 'HEAD').then(({ body: text }) => text), '');
  assert.equal((await fetch(`http://127.0.0.1:${port}/views`)).status, 404);
});

test('given many who connect beside the metrics, and requests that are none, when another asks, then it is answered once there is room', async (t) => {
  const { daemon } = await world(t, { metrics: '127.0.0.1:0' });
  const port = Number(daemon.metricsAddress!.split(':')[1]);
  const sockets: Socket[] = [];
  t.after(() => {
    for (const socket of sockets) socket.destroy();
  });
  const closed = new Set<Socket>();
  for (let n = 0; n < 200; n++) {
    const socket = connect(port, '127.0.0.1').on('error', () => undefined);
    socket.on('close', () => closed.add(socket)).resume();
    sockets.push(socket);
    await once(socket, 'connect');
  }
  // Those beyond the limit are closed, the others stay open.
  while (closed.size < 200 - 64) await new Promise((resolve) => setTimeout(resolve, 10));
  const open = sockets.filter((socket) => !closed.has(socket));
  assert.equal(open.length, 64);
  const texts = [
    'GET /view HTTP/1.1\r\nhost: a\r\nhost: 127.0.0.1\r\n\r\n',
    'GET /view HTTP/1.0\r\n\r\n',
    'GET http://127.0.0.1/view HTTP/1.1\r\nhost: evil.example\r\n\r\n',
    `GET /${'x'.repeat(100_000)} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n`,
    'GET /view HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n',
    'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    '\0'.repeat(1000),
  ];
  const answers = await Promise.all(
    texts.map(async (text, n) => {
      const socket = open[n]!;
      let got = '';
      socket.on('data', (piece: Buffer) => {
        got += piece.toString('latin1');
      });
      socket.end(text);
      await once(socket, 'close');
      return Number(/^HTTP\/1.1 (\d+) /.exec(got)?.[1]);
    }),
  );
  assert.deepEqual(answers, [403, 403, 404, 431, 400, 400, 400]);
  assert.equal((await ask(daemon.metricsAddress!)).status, 200);
});

test('given pictures that are being drawn, when more are asked for, then some wait for one page, and others are refused', async (t) => {
  const db = await testDB(t);
  const pictures = new Pictures(db, new AbortController().signal);
  const [one, two] = await Promise.all([pictures.page(), pictures.page()]);
  assert.equal(one, two);
  assert.equal(await pictures.page(), one);
  const open = [pictures.draw({}, {}), pictures.draw({}, {})];
  for (const each of open) await each.next();
  await assert.rejects(whole(pictures.draw({}, {})), (error) => isKind(error, 'ResourceExhausted'));
  await open[0]!.return();
  assert.match(await whole(pictures.draw({}, {})), /ebbtide-graph/);
});
