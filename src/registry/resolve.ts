/** Which manifest or index a reference names: each host that may know is asked by HEAD, or by GET where that does not say it all. */
import { type EbbtideError, invalidArgument, isNotFound, notFound } from '../errors.js';
import { MAX_DOCUMENT_BYTES } from '../images/documents.js';
import { MediaType } from '../images/media-types.js';
import { digestOf, isDigest } from '../model/digest.js';
import { type Exchange, failureOf } from './exchange.js';
import { type HttpResponse, readAll } from './http.js';
import { type RegistryReference, scopeOf } from './reference.js';

export interface Resolved {
  mediaType: string;
  digest: string;
  /** Bytes. */
  size: number;
}

const ACCEPT = [
  MediaType.dockerManifest,
  MediaType.dockerList,
  MediaType.ociManifest,
  MediaType.ociIndex,
  '*/*',
].join(', ');

/** NotFound: no host has it. Otherwise the most telling error of all hosts. */
export async function resolveReference(
  exchanges: readonly Exchange[],
  reference: RegistryReference,
): Promise<Resolved> {
  const { digest, tag } = reference;
  const paths = digest === undefined ? [`manifests/${tag}`] : [`manifests/${digest}`, `blobs/${digest}`];
  // Only a digest can be checked, so only some hosts may say what a tag is.
  const hosts = exchanges.filter(
    ({ host: { capabilities } }) =>
      capabilities.has('pull') && (digest !== undefined || capabilities.has('resolve')),
  );
  let worst: { error: unknown; rank: number } | undefined;
  for (const path of paths) {
    for (const [i, exchange] of hosts.entries()) {
      try {
        return await ask(exchange, reference, path, i === hosts.length - 1);
      } catch (error) {
        const rank = isNotFound(error) ? 1 : 2;
        if (worst === undefined || rank > worst.rank) worst = { error, rank };
      }
    }
  }
  throw worst?.error ?? notFound(`${reference.text}: no host to ask`, { object: reference.text });
}

async function ask(
  exchange: Exchange,
  reference: RegistryReference,
  path: string,
  isLast: boolean,
): Promise<Resolved> {
  const scopes = [scopeOf(reference)];
  const headers = { accept: ACCEPT };
  const head = await exchange.send({ method: 'HEAD', path, headers, scopes, isLast });
  await head.drop();
  if (head.status === 404) throw notFound(`${reference.text}: not found`, { object: reference.text });
  if (head.status > 299) throw await failureOf('HEAD', head);
  const said = saidBy(head, reference);
  if (said !== undefined) return checked(said, reference);
  const response = await exchange.send({ method: 'GET', path, headers, scopes, isLast });
  if (response.status > 299) throw await failureOf('GET', response);
  const bytes = await readAll(response, MAX_DOCUMENT_BYTES, () => tooLarge(reference));
  const digest = reference.digest ?? digestOf(bytes);
  return checked({ mediaType: mediaTypeOf(response), digest, size: bytes.length }, reference);
}

/** Undefined: it does not say the size or the digest. */
function saidBy(response: HttpResponse, { digest: wanted, text }: RegistryReference): Resolved | undefined {
  const length = Number(response.header('content-length') ?? Number.NaN);
  const digest = wanted ?? response.header('docker-content-digest');
  if (!digest || !Number.isSafeInteger(length) || length < 0) return undefined;
  if (!isDigest(digest)) {
    throw invalidArgument(`the registry gives "${digest.slice(0, 100)}" for ${text}, which is no digest`, {
      object: text,
      remedy: 'do not use this registry',
    });
  }
  return { mediaType: mediaTypeOf(response), digest, size: length };
}

/** Some registries say nothing but `text/plain` of a manifest of the first version. */
function mediaTypeOf(response: HttpResponse): string {
  return (response.header('content-type') ?? '').split(';', 1)[0]?.trim() ?? '';
}

function checked(resolved: Resolved, reference: RegistryReference): Resolved {
  if (resolved.size > MAX_DOCUMENT_BYTES) throw tooLarge(reference);
  return resolved;
}

const tooLarge = ({ text }: RegistryReference): EbbtideError =>
  notFound(`the manifest of ${text} is rejected: it is larger than ${MAX_DOCUMENT_BYTES} bytes`, {
    object: text,
    remedy: 'do not use this image',
  });
