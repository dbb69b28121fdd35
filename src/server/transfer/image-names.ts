/** The names that a transfer gives to the images of an archive, by the references of its destination. Pure. */
import { invalidArgument, notImplemented } from '../../errors.js';
import { Annotation } from '../../images/media-types.js';
import { labelOf } from '../../model/labels.js';
import type { StringMap } from '../../model/records.js';

/** As in the request. */
export interface ImageReference {
  name: string;
  /** Before the tags of an archive; else a name of its own. */
  isPrefix: boolean;
  /** Full names of the archive count also when they do not begin with this one. */
  allowOverwrite: boolean;
  /** Also a name with the digest. */
  addDigest: boolean;
  /** The latter only for images without another name. */
  skipNamedDigest: boolean;
}

/** One archive may make images of each of them. */
const REFERENCES_MAX = 100;

export function checkReferences(references: readonly ImageReference[]): void {
  if (references.length > REFERENCES_MAX) {
    throw invalidArgument(
      `the request has ${references.length} references, of which ${REFERENCES_MAX} are allowed`,
    );
  }
}

/** Of an image to be exported. NotImplemented: all that begin with a name. */
export function exportName({ name, isPrefix }: ImageReference): string {
  if (isPrefix) throw notImplemented('an export of all images that begin with a name is not here');
  return name;
}

/** Of an entry of an archive; none: it is not imported under a name. */
export function entryNames(
  references: readonly ImageReference[],
  annotations: StringMap | undefined,
  digest: string,
): string[] {
  const names: string[] = [];
  for (const reference of references) {
    if (!reference.isPrefix) continue;
    const name = nameBy(reference, annotations);
    if (name !== undefined) names.push(name);
    const withDigest = reference.addDigest && !(name !== undefined && reference.skipNamedDigest);
    if (withDigest) names.push(`${reference.name}@${digest}`);
  }
  return names;
}

/** containerd's annotation has to be a full name that fits; OCI's may be a tag. */
function nameBy(reference: ImageReference, annotations: StringMap | undefined): string | undefined {
  const full = labelOf(annotations, Annotation.imageName);
  if (full) return translated(reference, full) === full ? full : undefined;
  const ref = labelOf(annotations, Annotation.refName);
  return ref ? translated(reference, ref) : undefined;
}

function translated({ name, allowOverwrite }: ImageReference, ref: string): string | undefined {
  if (name === '') return undefined;
  if (!/[/:@]/.test(ref)) return `${name}:${ref}`;
  return allowOverwrite || beginsWith(ref, name) ? ref : undefined;
}

const beginsWith = (ref: string, name: string): boolean =>
  ref.startsWith(name) && (ref.length === name.length || /[/:@]/.test(ref.charAt(name.length)));
