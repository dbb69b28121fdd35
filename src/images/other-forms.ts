/**
 * Forms of images that cannot be imported, recognised by the names of their files, so that the error says
 * what a source is and what to do about it. Used by archive.ts, layout.ts and docker-archive.ts.
 */
import { type EbbtideError, invalidArgument } from '../errors.js';
import { DOCKER_FILE, INDEX_FILE, LAYOUT_FILE } from './source.js';

interface Form {
  /** Continues "it is …". */
  what: string;
  remedy: string;
}

const plainRemedy = 'give an OCI layout (directory or tar) or a docker save tar';

/** What skopeo, podman and buildah call `dir:` and `docker-dir`: one image, files named by digests. */
export const dirForm: Form = {
  what: 'a directory of the form dir: (docker-dir), one image with its manifest',
  remedy: 'copy it to an archive: skopeo copy dir:PATH oci-archive:FILE:TAG',
};

/** @param names paths of the source's files, as far as known */
function formOf(names: Iterable<string>): Form | undefined {
  const known = new Set(names);
  if (known.has(DOCKER_FILE) && known.has('version')) return dirForm;
  if (known.has(DOCKER_FILE)) {
    return {
      what: 'a docker archive that was unpacked',
      remedy: 'give the archive, or pack it: tar -C PATH -cf FILE .',
    };
  }
  if (known.has('repositories')) {
    return {
      what: `an archive of Docker before 1.10 (repositories without ${DOCKER_FILE})`,
      remedy: 'load it into a Docker between 1.10 and 24 and save it again',
    };
  }
  if (known.has(INDEX_FILE)) {
    return {
      what: `an OCI layout without ${LAYOUT_FILE}`,
      remedy: 'write the layout again, with all its files',
    };
  }
  for (const path of known) {
    const inside = /^([^/]+)\/(?:oci-layout|manifest\.json)$/.exec(path)?.[1];
    if (inside !== undefined) {
      return {
        what: `an archive with the images in its directory "${inside}"`,
        remedy: `pack what is in that directory: tar -C ${inside} -cf FILE .`,
      };
    }
  }
  return undefined;
}

/**
 * The error for a source without images that could be imported; `otherwise` is the reason if its form is
 * unknown.
 */
export function refusal(source: string, names: Iterable<string>, otherwise: string): EbbtideError {
  const form = formOf(names);
  if (form === undefined) return invalidArgument(otherwise, { object: source, remedy: plainRemedy });
  return invalidArgument(`cannot import ${source}: it is ${form.what}`, {
    object: source,
    remedy: form.remedy,
  });
}
