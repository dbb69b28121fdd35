/** The registry of a transfer's request: its client, with the streams that it uses. Used by pull.ts and push.ts. */
import { invalidArgument } from '../../errors.js';
import { RegistryClient } from '../../registry/client.js';
import { version } from '../version-info.js';
import { credentialsFrom } from './credentials.js';
import type { RegistryMessage } from './messages.js';
import { notHere, type Transfer } from './under-way.js';

const HEADERS_MAX = 100;
const HEADER_BYTES_MAX = 16 * 1024;

/** As containerd's clients show it. */
export const registryLabel = ({ reference }: RegistryMessage): string => `OCI Registry (${reference})`;

/** As in the labels that say where a blob came from: without the port. */
export const hostLabel = ({ host }: RegistryClient['reference']): string => host.replace(/:\d+$/, '');

/** Runs `work` with a client of the registry, which ends with it, as its streams do. `reference`: instead of the message's. */
export async function withRegistry(
  t: Transfer,
  { reference: asked, resolver }: RegistryMessage,
  work: (client: RegistryClient) => Promise<void>,
  reference = asked,
): Promise<void> {
  if ((resolver?.httpDebug ?? 0) !== 0) throw notHere('writing out requests (--http-dump, --http-trace)');
  const headers = headersOf(resolver?.headers ?? {});
  const defaultScheme = schemeOf(resolver?.defaultScheme ?? '');
  const authStream = resolver?.authStream ? t.take(resolver.authStream) : undefined;
  try {
    await using client = await RegistryClient.open(reference, {
      ...{ headers, defaultScheme, userAgent: version.replace('-', '/') },
      ...{ hostsDirectory: resolver?.hostDir || undefined, signal: t.call.signal },
      ...(authStream && { getCredentials: credentialsFrom(authStream, asked) }),
    });
    await work(client);
  } finally {
    authStream?.close();
  }
}

function schemeOf(text: string): 'http' | 'https' | undefined {
  if (text === '') return undefined;
  if (text === 'http' || text === 'https') return text;
  throw invalidArgument(`no scheme is called "${text}"`, { object: text, remedy: 'use https or http' });
}

function headersOf(given: Readonly<Record<string, string>>): Record<string, string> {
  const headers = Object.entries(given).map(([name, value]) => [name.toLowerCase(), value] as const);
  const bytes = headers.reduce((sum, [name, value]) => sum + name.length + value.length, 0);
  const isFit = headers.every(
    ([name, value]) => /^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name) && /^[\x20-\x7e]*$/.test(value),
  );
  if (!isFit || headers.length > HEADERS_MAX || bytes > HEADER_BYTES_MAX) {
    throw invalidArgument('the headers for the registry are malformed, or too many', {
      remedy: `give at most ${HEADERS_MAX} of ${HEADER_BYTES_MAX} bytes`,
    });
  }
  return Object.fromEntries(headers);
}
