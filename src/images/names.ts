/**
 * Image names: expands Docker's short forms as containerd does, and derives names from an archive's
 * annotations. Pure functions.
 */
import { invalidArgument } from '../errors.js';
import { isDigest } from '../model/digest.js';
import { labelOf } from '../model/labels.js';
import type { StringMap } from '../model/records.js';
import { Annotation } from './media-types.js';

const DEFAULT_DOMAIN = 'docker.io';
const LEGACY_DOMAIN = 'index.docker.io';
const MAX_NAME_BYTES = 255;

/** With a port or without. */
export const HOST =
  /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?$/;
const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
export const TAG = /^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/;

/** A path on a registry's host. */
export const isRepository = (path: string): boolean =>
  path.length <= MAX_NAME_BYTES && path.split('/').every((component) => COMPONENT.test(component));

interface Reference {
  domain: string;
  path: string;
  tag?: string | undefined;
  digest?: string | undefined;
}

/**
 * The full form of a Docker reference: `alpine` → `docker.io/library/alpine:latest`. With tag and digest the
 * tag is dropped, as in containerd. InvalidArgument for a reference that Docker would refuse.
 */
export function normalizeDockerReference(text: string): string {
  const { domain, path, tag, digest } = parse(text);
  if (digest !== undefined) return `${domain}/${path}@${digest}`;
  return `${domain}/${path}:${tag ?? 'latest'}`;
}

/** The short form by which `docker load` accepts a name; undefined for a name that it would refuse. */
export function dockerTagOf(name: string): string | undefined {
  let full: string;
  try {
    full = normalizeDockerReference(name);
  } catch {
    return undefined;
  }
  if (full.includes('@')) return undefined;
  return full.replace(/^docker\.io\/(?:library\/(?=[^/]+$))?/, '');
}

function parse(text: string): Reference {
  const bad = (why: string) => invalidArgument(`"${text}" is not an image name: ${why}`, { object: text });
  let rest = text;
  let digest: string | undefined;
  const at = rest.indexOf('@');
  if (at >= 0) {
    digest = rest.slice(at + 1);
    rest = rest.slice(0, at);
    if (!isDigest(digest)) throw bad('its digest is malformed');
  }
  let tag: string | undefined;
  const colon = rest.lastIndexOf(':');
  if (colon > rest.lastIndexOf('/')) {
    tag = rest.slice(colon + 1);
    rest = rest.slice(0, colon);
    if (!TAG.test(tag)) throw bad('its tag is malformed');
  }
  const { domain, path } = splitDomain(rest);
  if (!HOST.test(domain)) throw bad('its registry is malformed');
  if (!path.split('/').every((component) => COMPONENT.test(component))) throw bad('its path is malformed');
  if (rest.length > MAX_NAME_BYTES) throw bad(`it is longer than ${MAX_NAME_BYTES} bytes`);
  if (/^[0-9a-f]{64}$/.test(rest)) throw bad('it could be taken for an image id');
  return { domain, path, tag, digest };
}

function splitDomain(name: string): { domain: string; path: string } {
  const slash = name.indexOf('/');
  const first = name.slice(0, Math.max(slash, 0));
  const isHost = /[.:]/.test(first) || first === 'localhost' || first.toLowerCase() !== first;
  let domain = slash >= 0 && isHost ? first : DEFAULT_DOMAIN;
  let path = slash >= 0 && isHost ? name.slice(slash + 1) : name;
  if (domain === LEGACY_DOMAIN) domain = DEFAULT_DOMAIN;
  if (domain === DEFAULT_DOMAIN && !path.includes('/')) path = `library/${path}`;
  return { domain, path };
}

/** OCI's annotation for a full name: its tag, or `@` and its digest; a name without either is itself. */
export function refNameOf(name: string): string {
  const slash = name.indexOf('/');
  const mark = slash < 0 ? -1 : name.slice(slash).search(/[:@]/);
  if (mark < 0) return name;
  const at = slash + mark;
  return name[at] === '@' ? name.slice(at) : name.slice(at + 1);
}

export interface NamingOptions {
  /** Prefix for a bare tag; full names that do not belong to it are left out. */
  baseName?: string | undefined;
}

/**
 * The name under which an index entry is imported: containerd's annotation, else OCI's (a full name as it is,
 * a bare tag appended to the base name), else the base name with the digest. Undefined: left out (see
 * `baseName`).
 */
export function importName(
  annotations: StringMap | undefined,
  digest: string,
  options: NamingOptions = {},
): string | undefined {
  const base = options.baseName ?? `import-${new Date().toISOString().slice(0, 10)}`;
  const full = labelOf(annotations, Annotation.imageName);
  if (full) return full;
  const ref = labelOf(annotations, Annotation.refName);
  if (!ref) return `${base}@${digest}`;
  if (!/[/:@]/.test(ref)) return `${base}:${ref}`;
  return options.baseName === undefined || belongsTo(ref, options.baseName) ? ref : undefined;
}

const startsName = (text: string, name: string): boolean =>
  text.startsWith(name) && (text.length === name.length || /[/:@]/.test(text.charAt(name.length)));

/** `alpine` is the base of `docker.io/library/alpine:3` too. */
const belongsTo = (ref: string, base: string): boolean =>
  startsName(ref, base) || startsName(ref.slice(ref.lastIndexOf('/') + 1), base);
