/**
 * A directory of hosts in containerd's layout: `<directory>/<host>/hosts.toml`, or certificates in Docker's layout
 * (`*.crt`, `*.cert`, `*.key`). Called by hosts.ts. A file that cannot be read is an error: the host that it keeps away from would be
 * asked otherwise.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { basename, isAbsolute, join } from 'node:path';
import { failedPrecondition, invalidArgument, isNotFound } from '../errors.js';
import { parseDuration } from '../model/duration.js';
import { fsError } from '../system/system-errors.js';
import type { Capability, Scheme } from './host.js';
import { HOST_FILE_BYTES_MAX, HOSTS_MAX } from './limits.js';

/** What is configured of a host; without `server` the name's own. */
export interface HostFile {
  server?: { host: string; scheme: Scheme; path: string } | undefined;
  capabilities?: ReadonlySet<Capability> | undefined;
  ca?: string[] | undefined;
  pairs?: { cert: string; key: string }[] | undefined;
  insecure?: boolean | undefined;
  headers?: Record<string, string[]> | undefined;
  connectMs?: number | undefined;
}

const CONNECT_MS_MAX = 600_000;

type Table = Readonly<Record<string, unknown>>;

/** In the order of asking; undefined: nothing is configured for the host. */
export async function readHostsDirectory(directory: string, host: string): Promise<HostFile[] | undefined> {
  const port = host.lastIndexOf(':');
  const withPort = port > 0 ? [`${host.slice(0, port)}_${host.slice(port + 1)}_`] : [];
  for (const name of [...withPort, host, '_default']) {
    const dir = join(directory, name);
    if (!(await exists(dir))) continue;
    const text = await contentOf(join(dir, 'hosts.toml'));
    return text ? parseHostsFile(dir, text) : [await certificatesIn(dir)];
  }
  return undefined;
}

const exists = async (path: string): Promise<boolean> => {
  try {
    await stat(path);
    return true;
  } catch (error) {
    const known = fsError('read', path, error);
    if (isNotFound(known)) return false;
    throw known;
  }
};

/** Undefined without the file. */
async function contentOf(file: string): Promise<string | undefined> {
  try {
    const { size } = await stat(file);
    if (size > HOST_FILE_BYTES_MAX)
      throw failedPrecondition(`${file} is larger than ${HOST_FILE_BYTES_MAX} bytes`);
    return await readFile(file, 'utf8');
  } catch (error) {
    const known = fsError('read', file, error);
    if (isNotFound(known)) return undefined;
    throw known;
  }
}

async function needed(file: string): Promise<string> {
  const text = await contentOf(file);
  if (text !== undefined) return text;
  throw failedPrecondition(`${file} is missing`, {
    object: file,
    remedy: 'put it there, or take it out of hosts.toml',
  });
}

async function certificatesIn(dir: string): Promise<HostFile> {
  const names = await readdir(dir).catch((error: unknown) => {
    throw fsError('read', dir, error);
  });
  if (names.length > HOSTS_MAX)
    throw failedPrecondition(`${dir} has more than ${HOSTS_MAX} files`, { object: dir });
  const ca: string[] = [];
  const pairs: { cert: string; key: string }[] = [];
  for (const name of names.sort()) {
    if (name.endsWith('.crt')) ca.push(await needed(join(dir, name)));
    if (!name.endsWith('.cert')) continue;
    const cert = await needed(join(dir, name));
    pairs.push({ cert, key: (await contentOf(join(dir, `${basename(name, '.cert')}.key`))) ?? cert });
  }
  return { ...(ca.length > 0 && { ca }), ...(pairs.length > 0 && { pairs }) };
}

/** The hosts in the file's order, then the server. */
async function parseHostsFile(dir: string, text: string): Promise<HostFile[]> {
  const file = join(dir, 'hosts.toml');
  const wrong = (what: string, cause?: unknown) =>
    invalidArgument(`${file} ${what}`, { object: file, cause, remedy: 'correct the file' });
  const { parse } = await import('smol-toml');
  let toml: Table;
  try {
    toml = parse(text) as Table;
  } catch (error) {
    throw wrong(`is not TOML: ${(error as Error).message.split('\n')[0]}`, error);
  }
  const hosts = Object.entries(tableOf(toml.host) ?? {});
  if (hosts.length > HOSTS_MAX) throw wrong(`has more than ${HOSTS_MAX} hosts`);
  const found: HostFile[] = [];
  for (const [server, table] of [...hosts, [toml.server ?? '', toml]] as const) {
    try {
      found.push(await parseHost(dir, server, tableOf(table) ?? {}));
    } catch (error) {
      if (error instanceof TypeError) throw wrong(`: ${error.message}`, error);
      throw error;
    }
  }
  return found;
}

const tableOf = (value: unknown): Table | undefined =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Table) : undefined;

/** TypeError: a value that makes no sense. */
async function parseHost(dir: string, server: unknown, table: Table): Promise<HostFile> {
  const { skip_verify: insecure, dial_timeout: timeout } = table;
  if (insecure !== undefined && typeof insecure !== 'boolean')
    throw new TypeError('skip_verify is not true or false');
  if (timeout !== undefined && typeof timeout !== 'string')
    throw new TypeError('dial_timeout is not a duration');
  const at = (path: string): string => (isAbsolute(path) ? path : join(dir, path));
  const ca =
    table.ca === undefined ? undefined : await Promise.all(texts(table.ca, 'ca').map((f) => needed(at(f))));
  const pairs = table.client === undefined ? undefined : await clientPairs(table.client, at);
  const named = serverOf(server, table.override_path === true);
  return {
    ...(named && { server: named }),
    ...(table.capabilities !== undefined && { capabilities: capabilitiesOf(table.capabilities) }),
    ...(ca && { ca }),
    ...(pairs && { pairs }),
    ...(insecure !== undefined && { insecure }),
    ...(table.header !== undefined && { headers: headersOf(table.header) }),
    ...(timeout !== undefined && { connectMs: millisOf(timeout) }),
  };
}

function millisOf(text: string): number {
  const nanos = parseDuration(text);
  if (nanos === undefined || nanos <= 0n) throw new TypeError(`dial_timeout: "${text}" is not a duration`);
  return Math.min(Number(nanos / 1_000_000n) + 1, CONNECT_MS_MAX);
}

function serverOf(server: unknown, isWholePath: boolean): HostFile['server'] {
  if (typeof server !== 'string') throw new TypeError('a server is not a text');
  if (server === '') return undefined;
  let url: URL;
  try {
    url = new URL(server.startsWith('http') ? server : `https://${server}`);
  } catch {
    throw new TypeError(`"${server}" is not an address`);
  }
  if (url.protocol !== 'https:' && url.protocol !== 'http:')
    throw new TypeError(`"${server}" is not of HTTP`);
  const bare = url.pathname.replace(/\/+$/, '');
  const path = isWholePath || bare.endsWith('/v2') ? bare : `${bare}/v2`;
  return { host: url.host, scheme: url.protocol === 'https:' ? 'https' : 'http', path };
}

/** One text or several. */
function texts(value: unknown, name: string): string[] {
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return list.map((one) => {
    if (typeof one === 'string') return one;
    throw new TypeError(`${name} has a value that is not a text`);
  });
}

async function clientPairs(
  value: unknown,
  at: (path: string) => string,
): Promise<{ cert: string; key: string }[]> {
  const list: unknown[] = Array.isArray(value) ? value : [value];
  return Promise.all(
    list.map(async (one) => {
      const [cert = '', key = cert, ...more] = texts(one, 'client');
      if (cert === '' || more.length > 0) throw new TypeError('client has a pair that is none');
      return { cert: await needed(at(cert)), key: await needed(at(key)) };
    }),
  );
}

function capabilitiesOf(value: unknown): ReadonlySet<Capability> | undefined {
  const names = texts(value, 'capabilities').map((name) => name.toLowerCase());
  const other = names.find((name) => name !== 'pull' && name !== 'resolve' && name !== 'push');
  if (other !== undefined) throw new TypeError(`unknown capability ${other}`);
  return names.length === 0 ? undefined : new Set(names as Capability[]);
}

function headersOf(value: unknown): Record<string, string[]> {
  const table = tableOf(value);
  if (table === undefined) throw new TypeError('header is not a table');
  return Object.fromEntries(
    Object.entries(table).map(([name, one]) => [name.toLowerCase(), texts(one, `header ${name}`)]),
  );
}
