/** References to images in registries, as containerd's clients write them: `host[:port]/repository[:tag][@digest]`. Pure. */
import { invalidArgument } from '../errors.js';
import { HOST, isRepository, TAG } from '../images/names.js';
import { isDigest } from '../model/digest.js';

export interface RegistryReference {
  /** As it was given. */
  text: string;
  /** With the port, if there is one; `docker.io` is a name that no host has. */
  host: string;
  /** Path on the host. */
  repository: string;
  tag?: string | undefined;
  digest?: string | undefined;
}

/** InvalidArgument: malformed, without a host, or with neither a tag nor a digest. */
export function parseReference(text: string): RegistryReference {
  const bad = (why: string) =>
    invalidArgument(`"${text}" is not a reference to an image in a registry: ${why}`, {
      object: text,
      remedy: 'write host/repository:tag, or host/repository@digest',
    });
  const slash = text.indexOf('/');
  const host = text.slice(0, Math.max(0, slash));
  if (!HOST.test(host)) throw bad('it does not begin with a host');
  let repository = text.slice(slash + 1);
  const at = repository.indexOf('@');
  const digest = at < 0 ? undefined : repository.slice(at + 1);
  if (at >= 0) repository = repository.slice(0, at);
  const colon = repository.indexOf(':');
  const tag = colon < 0 ? undefined : repository.slice(colon + 1);
  if (colon >= 0) repository = repository.slice(0, colon);
  if (digest !== undefined && !isDigest(digest)) throw bad('its digest is malformed');
  if (tag !== undefined && !TAG.test(tag)) throw bad('its tag is malformed');
  if (!isRepository(repository)) throw bad('its path is malformed');
  if (tag === undefined && digest === undefined) throw bad('object required');
  return {
    text,
    host,
    repository,
    ...(tag !== undefined && { tag }),
    ...(digest !== undefined && { digest }),
  };
}

/** What a token is asked for. */
export const scopeOf = ({ repository }: RegistryReference, push = false): string =>
  `repository:${repository}:pull${push ? ',push' : ''}`;
