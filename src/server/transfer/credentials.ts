/** Credentials for registries, which the client of a transfer has and gives over a named stream, one at a time. Used by registry.ts. */
import { canceled, invalidArgument } from '../../errors.js';
import type { Credentials, GetCredentials } from '../../registry/credentials.js';
import { anyOf, messageIn } from './any.js';
import { type AuthResponseMessage, AuthType, types } from './messages.js';
import type { NamedStream } from './streams.js';

/** Bytes of a secret; as long as a header may be. */
const SECRET_BYTES_MAX = 16 * 1024;

/** Asks over the stream. Canceled: the client has closed it. */
export function credentialsFrom(stream: NamedStream, reference: string): GetCredentials {
  let last: Promise<unknown> = Promise.resolve();
  const ask = async (host: string, wwwauthenticate: readonly string[]): Promise<Credentials> => {
    await stream.send(anyOf(types.authRequest, { host, reference, wwwauthenticate: [...wwwauthenticate] }));
    const answer = await stream.receive();
    if (answer === undefined) throw canceled('the client gives no credentials any more');
    return credentialsIn(messageIn<AuthResponseMessage>(types.authResponse, answer));
  };
  return (host, challenges) => {
    const next = last.then(() => ask(host, challenges));
    last = next.catch(() => undefined);
    return next;
  };
}

function credentialsIn({ authType, username, secret }: AuthResponseMessage): Credentials {
  if (Buffer.byteLength(username) + Buffer.byteLength(secret) > SECRET_BYTES_MAX) {
    throw invalidArgument(`credentials have at most ${SECRET_BYTES_MAX} bytes`);
  }
  const none = { username: '', secret: '', header: '' };
  if (authType === AuthType.credentials) return { ...none, username, secret };
  if (authType === AuthType.refresh) return { ...none, secret };
  if (authType !== AuthType.header) return none;
  if (/[^\x20-\x7e]/.test(secret))
    throw invalidArgument('the header for a registry has characters that none has');
  return { ...none, header: secret };
}
