/**
 * Debian's docker-registry on loopback, on a directory of its own: open, with basic authentication (`user`, `secret`), or with tokens of
 * a server beside it that knows the same user; by HTTP, or HTTPS with a certificate that nobody signed. Used by test/server/transfer
 * and test/conformance.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { createHash, createPrivateKey, sign } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { type AddressInfo, connect, createServer as createTcpServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { missingTools } from './debian.js';

export interface DockerRegistryOptions {
  auth?: 'basic' | 'token';
  tls?: boolean;
}

/** Of `user`: bcrypt of `secret`. */
const HTPASSWD = 'user:$2b$05$MyMPR9ZuLavsD5Tb9fSqluafhxJONYCveUfKvI4ozG/PhWQo4a/7e\n';
const START_MS_MAX = 30_000;

/** undefined when it can be started, else the sentence to skip with. */
export const dockerRegistryMissing = (): string | undefined => missingTools(['docker-registry', 'openssl']);

export class DockerRegistry implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #tokens: Server | undefined;
  /** With its port. */
  readonly host: string;
  /** Its own certificate, with `tls`. */
  readonly certificate: string;

  private constructor(host: string, child: ChildProcess, tokens: Server | undefined, certificate: string) {
    this.host = host;
    this.#child = child;
    this.#tokens = tokens;
    this.certificate = certificate;
  }

  /** `dir`: empty, or not there. */
  static async start(dir: string, { auth, tls }: DockerRegistryOptions = {}): Promise<DockerRegistry> {
    mkdirSync(dir, { recursive: true });
    const port = await freePort();
    const needsCertificate = tls || auth === 'token';
    if (needsCertificate) makeCertificate(dir);
    const at = (name: string): string => join(dir, name);
    const tokens = auth === 'token' ? await tokenServer(dir) : undefined;
    writeFileSync(at('htpasswd'), HTPASSWD);
    const authentication = {
      basic: { htpasswd: { realm: 'test', path: at('htpasswd') } },
      token: {
        token: {
          ...{ realm: `http://127.0.0.1:${tokens && portOf(tokens)}/token`, service: 'test', issuer: 'test' },
          rootcertbundle: at('cert.pem'),
        },
      },
    };
    // JSON is YAML.
    const config = {
      version: '0.1',
      log: { level: 'error', accesslog: { disabled: true } },
      storage: { filesystem: { rootdirectory: at('data') }, delete: { enabled: true } },
      http: {
        addr: `127.0.0.1:${port}`,
        secret: 'test',
        ...(tls && { tls: { certificate: at('cert.pem'), key: at('key.pem') } }),
      },
      ...(auth && { auth: authentication[auth] }),
    };
    writeFileSync(at('config.yml'), JSON.stringify(config));
    const child = spawn('docker-registry', ['serve', at('config.yml')], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      said = `${said}${text}`.slice(-2000);
    });
    const host = `127.0.0.1:${port}`;
    const registry = new DockerRegistry(host, child, tokens, needsCertificate ? at('cert.pem') : '');
    for (const start = Date.now(); !(await answers(port)); await sleep(20)) {
      if (child.exitCode === null && Date.now() - start < START_MS_MAX) continue;
      await registry[Symbol.asyncDispose]();
      throw new Error(`docker-registry does not start: ${said}`);
    }
    return registry;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#tokens?.closeAllConnections();
    this.#tokens?.close();
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill('SIGKILL');
    await ended;
  }
}

const portOf = (server: Pick<Server, 'address'>): number => (server.address() as AddressInfo).port;

async function freePort(): Promise<number> {
  const server = createTcpServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const port = portOf(server);
  server.close();
  await once(server, 'close');
  return port;
}

const answers = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });

function makeCertificate(dir: string): void {
  const subject = ['-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1'];
  const files = ['-keyout', join(dir, 'key.pem'), '-out', join(dir, 'cert.pem')];
  const args = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '2', ...files, ...subject];
  const { status, stderr } = spawnSync('openssl', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`openssl made no certificate: ${stderr}`);
}

/** Gives tokens to `user` alone, by POST with the grants of OAuth, and by GET. */
async function tokenServer(dir: string): Promise<Server> {
  const key = createPrivateKey(readFileSync(join(dir, 'key.pem')));
  const der = readFileSync(join(dir, 'cert.pem'), 'utf8').replace(/-----[^-]+-----|\s/g, '');
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
  const tokenOf = (scopes: readonly string[]): string => {
    const access = scopes.map((scope) => {
      const [type, name, actions = ''] = scope.split(':');
      return { type, name, actions: actions.split(',') };
    });
    const now = Math.floor(Date.now() / 1000);
    const claims = { iss: 'test', sub: 'user', aud: 'test', exp: now + 300, nbf: now - 10, iat: now, access };
    const jti = createHash('sha256').update(JSON.stringify(claims)).digest('hex');
    const text = `${part({ typ: 'JWT', alg: 'RS256', x5c: [der] })}.${part({ ...claims, jti })}`;
    return `${text}.${sign('sha256', Buffer.from(text), key).toString('base64url')}`;
  };
  const server = createServer((request, response) => {
    let body = '';
    request.setEncoding('utf8').on('data', (text: string) => {
      body += text;
    });
    request.on('end', () => {
      const form = new URLSearchParams(body);
      const { searchParams } = new URL(request.url ?? '', 'http://token');
      const isPost = request.method === 'POST';
      const basic = `Basic ${Buffer.from('user:secret').toString('base64')}`;
      const isGood = isPost
        ? form.get('username') === 'user' && form.get('password') === 'secret'
        : request.headers.authorization === basic;
      if (!isGood) return void response.writeHead(401).end();
      const scopes = isPost ? (form.get('scope') ?? '').split(' ') : searchParams.getAll('scope');
      const token = tokenOf(scopes.filter((scope) => scope !== ''));
      response.end(JSON.stringify({ access_token: token, token, expires_in: 300 }));
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server;
}
