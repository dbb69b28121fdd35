/** Real images for the sessions: made once from Debian's packages by make-image.sh and kept. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { madeBy } from '../support/made.js';

const script = fileURLToPath(new URL('../../../test/conformance/make-image.sh', import.meta.url));

export interface MadeImages {
  /** Holds layout/ (OCI layout), layout.tar and app.docker.tar. */
  dir: string;
  digests: { app: string; base: string; config: string; layer: string };
}

export function makeImages(): MadeImages {
  const dir = madeBy(script);
  return { dir, digests: digestsOf(join(dir, 'layout')) };
}

interface Descriptor {
  digest: string;
  annotations?: Record<string, string>;
}

function digestsOf(layout: string): MadeImages['digests'] {
  const index = readJson(join(layout, 'index.json')) as { manifests: Descriptor[] };
  const named = (name: string): string =>
    index.manifests.find((m) => m.annotations?.['org.opencontainers.image.ref.name'] === name)!.digest;
  const manifest = readJson(blobPath(layout, named('app'))) as { config: Descriptor; layers: Descriptor[] };
  return {
    app: named('app'),
    base: named('base'),
    config: manifest.config.digest,
    layer: manifest.layers.at(-1)!.digest,
  };
}

export const blobPath = (layout: string, digest: string): string =>
  join(layout, 'blobs', ...digest.split(':').slice(0, 2));

const readJson = (file: string): unknown => JSON.parse(readFileSync(file, 'utf8'));
