/** What registries ask for with a 401, and what they get: basic and bearer, tokens that end, and asking for too much. */
import assert from 'node:assert/strict';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type TestContext, test } from 'node:test';
import { parseChallenges } from '../../src/registry/challenge.js';
import type { Credentials } from '../../src/registry/credentials.js';
import { ctx } from '../images/fixtures.js';
import type { Trick } from './registry.js';
import { fetched, leftNothing, pushed, stage } from './support.js';

const user: Credentials = { username: 'user', secret: 'secret', header: '' };
const basic = `Basic ${Buffer.from('user:secret').toString('base64')}`;

/** Everything needs this value of Authorization. */
const needing =
  (challenge: string, isGood: (authorization: string) => boolean): Trick =>
  (request, response) => {
    if (isGood(request.headers.authorization ?? '')) return false;
    request.resume();
    response.writeHead(401, { 'www-authenticate': challenge }).end();
    return true;
  };

interface TokenServer {
  realm: string;
  /** `method service scope authorization body`, of each request. */
  asked: string[];
}

/** Answers as it is told; closed with the test. */
async function tokenServer(
  t: TestContext,
  answer: (request: IncomingMessage, count: number) => { status: number; body: string },
): Promise<TokenServer> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (part: Buffer) => {
      body += part;
    });
    request.on('end', () => {
      const { searchParams } = new URL(request.url ?? '', 'http://token');
      const scopes = searchParams.getAll('scope').join(' ');
      const { authorization = '-' } = request.headers;
      asked.push(`${request.method} ${searchParams.get('service')} ${scopes} ${authorization} ${body}`);
      const { status, body: text } = answer(request, asked.length);
      response.writeHead(status).end(text);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.after(() => server.close());
  return { realm: `http://127.0.0.1:${(server.address() as AddressInfo).port}/token`, asked };
}

const token = (text: string, seconds?: number) => ({
  status: 200,
  body: JSON.stringify({ token: text, ...(seconds && { expires_in: seconds }) }),
});

test('given challenges in every form, when parsed, then bearer is first, and damage ends a value', () => {
  const parsed = (...values: string[]) =>
    parseChallenges(values).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)]);
  assert.deepEqual(parsed('Basic realm="a, b", Bearer realm="https://x/y",scope="a:b c:d"', 'Digest'), [
    ['bearer', { realm: 'https://x/y', scope: 'a:b c:d' }],
    ['basic', { realm: 'a, b' }],
    ['digest', {}],
  ]);
  assert.deepEqual(parsed('BEARER realm = "q\\"q" , service=plain'), [
    ['bearer', { realm: 'q"q', service: 'plain' }],
  ]);
  assert.deepEqual(
    parsed('', ',,', '"', 'Basic realm="open'),
    [['basic', {}]].concat([['realm', {}]]).slice(0, 2),
  );
});

test('given a registry with basic authentication, when fetched, then the client is asked once, and everything has its answer', async (t) => {
  const s = await stage(t);
  s.registry.trick = needing('Basic realm="r"', (given) => given === basic);
  const asked: string[] = [];
  const getCredentials = async (host: string, challenges: readonly string[]) => {
    asked.push(`${host} ${challenges}`);
    return user;
  };
  await fetched(s, { getCredentials });
  assert.deepEqual(asked, [`${s.registry.host} Basic realm="r"`]);
  await pushed(s, 'copy:1', { getCredentials });
  assert.equal(s.registry.taken.size, 0);
});

test('given wrong credentials, or none, when fetched, then it is denied after a few requests, and nothing stays', async (t) => {
  const s = await stage(t);
  s.registry.trick = needing('Basic realm="r"', () => false);
  for (const given of [user, { ...user, secret: '' }, { username: '', secret: '', header: 'Basic eA==' }]) {
    s.registry.asked.length = 0;
    await assert.rejects(fetched(s, { getCredentials: async () => given }), {
      message: /authorization failed/,
    });
    assert.ok(s.registry.asked.length <= 3);
  }
  await assert.rejects(fetched(s), { message: /authorization failed/ });
  await assert.rejects(
    fetched(s, { getCredentials: async () => Promise.reject(new Error('not now')) }),
    /not now/,
  );
  await leftNothing(s);
});

test('given a registry with tokens, when fetched, then one token is asked for, anonymously, by GET without POST, or by POST', async (t) => {
  const s = await stage(t);
  const server = await tokenServer(t, (request, count) =>
    request.method === 'POST' && count === 2 ? { status: 404, body: '' } : token('good'),
  );
  const challenge = `Bearer realm="${server.realm}",service="s",scope="repository:app:pull"`;
  s.registry.trick = needing(challenge, (given) => given === 'Bearer good');
  const refresh = { username: '', secret: 'refreshed', header: '' };
  for (const credentials of [undefined, user, refresh]) {
    await fetched(s, credentials && { getCredentials: async () => credentials });
    await s.db.images.delete(ctx, 'fetched');
  }
  assert.deepEqual(server.asked, [
    'GET s repository:app:pull - ',
    'POST null  - scope=repository%3Aapp%3Apull&service=s&client_id=containerd-client&grant_type=password&username=user&password=secret',
    `GET s repository:app:pull ${basic} `,
    'POST null  - scope=repository%3Aapp%3Apull&service=s&client_id=containerd-client&grant_type=refresh_token&refresh_token=refreshed',
  ]);
});

test('given a token that is over, when it is refused, then another one is asked for', async (t) => {
  const s = await stage(t);
  const server = await tokenServer(t, (_request, count) => token(`t${count}`));
  let good = 't1';
  s.registry.trick = (request, response, asked) => {
    if (asked.path.includes('/blobs/')) good = 't2';
    const challenge = `Bearer realm="${server.realm}",error="invalid_token"`;
    return needing(challenge, (given) => given === `Bearer ${good}`)(request, response, asked);
  };
  await fetched(s);
  assert.equal(server.asked.length, 2);
});

test('given a token server that does what none should, when fetched, then it is an error that says so', async (t) => {
  const s = await stage(t);
  const answers: [{ status: number; body: string }, RegExp][] = [
    [{ status: 200, body: ' '.repeat(100_000) }, /more than 65536 bytes/],
    [{ status: 200, body: '<html>' }, /something else than JSON/],
    [{ status: 200, body: 'null' }, /did not include a token/],
    [{ status: 200, body: '{"token":5}' }, /did not include a token/],
    [token('x'.repeat(20_000)), /more than 16384 bytes/],
    [token('a\r\nb: c'), /is none/],
    [{ status: 500, body: '' }, /no token .* status 500/],
    [{ status: 302, body: '' }, /no token .* status 302/],
  ];
  for (const [answer, message] of answers) {
    const { realm } = await tokenServer(t, () => answer);
    s.registry.trick = needing(`Bearer realm="${realm}"`, () => false);
    await assert.rejects(fetched(s), { message });
  }
  for (const realm of ['', 'file:///etc/shadow', 'nothing', 'gopher://x']) {
    s.registry.trick = needing(`Bearer realm="${realm}"`, () => false);
    await assert.rejects(fetched(s), { kind: 'InvalidArgument', message: /which is refused/ });
  }
  await leftNothing(s);
});

test('given a redirect to another host, when fetched, then neither credentials nor headers go there', async (t) => {
  const s = await stage(t);
  const other = await stage(t);
  const { digest } = s.image.layers[0]!;
  s.registry.trick = (request, response, asked) => {
    if (needing('Basic realm="r"', (given) => given === basic)(request, response, asked)) return true;
    if (!asked.path.endsWith(digest)) return false;
    response.writeHead(307, { location: `http://${other.registry.host}${asked.path}` }).end();
    return true;
  };
  await fetched(s, { getCredentials: async () => user, headers: { 'x-secret': 'mine' } });
  assert.equal(
    s.registry.asked.every(({ headers }) => headers['x-secret'] === 'mine'),
    true,
  );
  assert.deepEqual(
    other.registry.asked.map(({ headers }) => [headers.authorization, headers['x-secret']]),
    [[undefined, undefined]],
  );
});
