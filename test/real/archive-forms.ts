/**
 * One image in the archive forms of build tools that Debian does not have, after their documented layouts: the same
 * config and layers each time, under the names and in the order of that tool.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import { digestOf } from '../../src/model/digest.js';
import { type Item, tarOf } from '../archive/support.js';
import { OCI_CONFIG, OCI_INDEX, OCI_LAYER, OCI_MANIFEST } from '../images/fixtures.js';

interface Entry {
  mediaType: string;
  digest: string;
  size: number;
  [field: string]: unknown;
}

const EMPTY = 'application/vnd.oci.empty.v1+json';
const NAME = 'example.com/real/app:1.0';
const hex = (digest: string): string => digest.slice('sha256:'.length);

/** Forms that make-archives.sh writes only where their tools are. */
export const optionalForms: readonly (readonly [string, string])[] = [
  ['`buildah push` to oci-archive', 'buildah-oci.tar'],
  ['`buildah push` to docker-archive', 'buildah-docker.tar'],
  ['`podman save --format oci-archive`', 'podman-oci.tar'],
  ['`podman save`', 'podman-docker.tar'],
  ['`podman save -m`, two images', 'podman-multi.tar'],
];
/** Of two platforms; ctr exports it again. */
export const TWO_PLATFORMS = 'an index of two platforms';

/** Writes every form into `dir`, made by make-archives.sh; returns the names of the forms, and their files. */
export async function writeForms(dir: string): Promise<Map<string, string>> {
  const image = readImage(join(dir, 'layout'));
  const files = new Map<string, string>([
    ['OCI layout, by umoci, packed by `tar -C layout .`', join(dir, 'layout.tar')],
    ['`skopeo` oci-archive', join(dir, 'oci-archive.tar')],
    ['`skopeo` docker-archive', join(dir, 'docker-archive.tar')],
    ['OCI layout with zstd layers, by skopeo', join(dir, 'zstd.tar')],
    ['OCI layout with zstd:chunked layers, by skopeo', join(dir, 'chunked.tar')],
    ...optionalForms
      .map(([name, file]) => [name, join(dir, file)] as const)
      .filter(([, file]) => existsSync(file)),
  ]);
  const forms: [string, Item[]][] = [...dockerForms(image), ...layoutForms(image)];
  for (const [i, [name, items]] of forms.entries()) {
    const file = join(dir, `form-${i}.tar`);
    const archive = await tarOf(items);
    writeFileSync(file, name.includes('in gzip') ? gzipSync(archive, { level: 1 }) : archive);
    files.set(name, file);
  }
  return files;
}

interface Image {
  manifest: Entry;
  config: Entry;
  layers: Entry[];
  blob(digest: string): Buffer;
}

function readImage(layout: string): Image {
  const blob = (digest: string): Buffer => readFileSync(join(layout, 'blobs', digest.replace(':', '/')));
  const index = JSON.parse(readFileSync(join(layout, 'index.json'), 'utf8')) as { manifests: Entry[] };
  const [manifest] = index.manifests;
  const parsed = JSON.parse(blob(manifest!.digest).toString()) as { config: Entry; layers: Entry[] };
  return { manifest: manifest!, ...parsed, blob };
}

// ------------------------------------------------------------------------------------------------- with manifest.json

function dockerForms({ config, layers, blob }: Image): [string, Item[]][] {
  const configBytes = blob(config.digest);
  const packed = layers.map(({ digest }) => blob(digest));
  const plain = packed.map((bytes) => gunzipSync(bytes));
  const archive = (configName: string, names: readonly string[], contents: readonly Buffer[]): Item[] => [
    { name: configName, text: configBytes },
    ...contents.map((text, i) => ({ name: names[i]!, text })),
    list(configName, names),
  ];
  const crane = archive(
    config.digest,
    layers.map(({ digest }) => `${hex(digest)}.tar.gz`),
    packed,
  );
  const ids = plain.map((_, i) => String(i + 1).repeat(64));
  const old = ids.map((id) => `${id}/layer.tar`);
  return [
    ['`crane`, `ko`, `kaniko`: `sha256:<hex>`, `<hex>.tar.gz`, list last', crane],
    ['the same, list first', [...crane.slice(-1), ...crane.slice(0, -1)]],
    [
      '`jib`: `config.json`',
      archive(
        'config.json',
        layers.map(({ digest }) => `${hex(digest)}.tar.gz`),
        packed,
      ),
    ],
    [
      '`docker save` 1.10 to 24: `<id>/layer.tar`',
      [
        ...plain.flatMap((text, i): Item[] => [
          { name: ids[i]!, type: 'directory' },
          { name: `${ids[i]}/VERSION`, text: '1.0' },
          { name: `${ids[i]}/json`, text: `{"id":"${ids[i]}"}` },
          { name: old[i]!, text },
        ]),
        { name: `${hex(config.digest)}.json`, text: configBytes },
        list(`${hex(config.digest)}.json`, old),
        { name: 'repositories', text: '{}' },
      ],
    ],
    [
      '`nix` dockerTools.buildImage: names of its own, `repositories`, in gzip',
      [
        ...plain.flatMap((text, i): Item[] => [
          { name: ids[i]!, type: 'directory', mode: 0o555 },
          { name: `${ids[i]}/VERSION`, text: '1.0' },
          { name: `${ids[i]}/json`, text: `{"id":"${ids[i]}"}` },
          { name: old[i]!, text },
        ]),
        { name: `${hex(config.digest)}.json`, text: configBytes },
        list(`${hex(config.digest)}.json`, old),
        { name: 'repositories', text: `{"example.com/real/app":{"1.0":"${ids.at(-1)}"}}` },
      ],
    ],
    [
      '`nix` dockerTools.streamLayeredImage: `<diff id>/layer.tar`',
      archive(
        `${hex(config.digest)}.json`,
        plain.map((text) => `${hex(digestOf(text))}/layer.tar`),
        plain,
      ),
    ],
    [
      '`rules_oci`: `blobs/sha256/<hex>.tar.gz`, no layout, list first',
      archive(
        blobPath(config.digest),
        layers.map(({ digest }) => `${blobPath(digest)}.tar.gz`),
        packed,
      ).toReversed(),
    ],
    ['layers without extensions', archive('c', ['x/0', 'x/1', 'x/2'], plain)],
    ['gzip layers called `layer.tar`', archive('config.json', old, packed)],
    [
      'names with `./`, layers as links',
      [
        { name: './config.json', text: configBytes },
        ...plain.map((text, i): Item => ({ name: `./store/${i}`, text })),
        ...plain.map(
          (_, i): Item =>
            i === 0
              ? { name: './0.tar', type: 'link', linkname: './store/0' }
              : { name: `./${i}.tar`, type: 'symlink', linkname: `store/${i}` },
        ),
        { ...list('config.json', ['0.tar', '1.tar', '2.tar']), name: './manifest.json' },
      ],
    ],
  ];
}

const list = (config: string, layers: readonly string[]): Item => ({
  name: 'manifest.json',
  text: JSON.stringify([{ Config: config, RepoTags: [NAME], Layers: layers }]),
});

// ----------------------------------------------------------------------------------------------------- OCI layouts

function layoutForms(image: Image): [string, Item[]][] {
  const { manifest, config, layers, blob } = image;
  const platform = { os: 'linux', architecture: architectureOf(image) };
  const entry = { ...manifest, annotations: { 'org.opencontainers.image.ref.name': 'app' } };
  const layout = (entries: readonly Entry[], more: readonly Buffer[] = []): Item[] => [
    ...[...new Set([manifest.digest, config.digest, ...layers.map((l) => l.digest)])].map((d) =>
      blobItem(blob(d)),
    ),
    ...more.map(blobItem),
    { name: 'index.json', text: JSON.stringify({ schemaVersion: 2, manifests: entries }) },
    { name: 'oci-layout', text: '{"imageLayoutVersion":"1.0.0"}' },
  ];
  const document = (mediaType: string, content: object): [Entry, Buffer] => {
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType, ...content }));
    return [{ mediaType, digest: digestOf(bytes), size: bytes.length }, bytes];
  };
  const raw = (mediaType: string, bytes: Buffer): Entry => ({
    mediaType,
    digest: digestOf(bytes),
    size: bytes.length,
  });
  const named = (desc: Entry): Entry => ({ ...desc, annotations: entry.annotations });

  const nulls = { annotations: null, urls: null, platform: null };
  const [nullManifest, nullBytes] = document(OCI_MANIFEST, {
    config: { ...config, ...nulls },
    layers: layers.map((l) => ({ ...l, ...nulls })),
    annotations: null,
    manifests: null,
    subject: null,
  });
  const empty = Buffer.from('{}');
  const statement = Buffer.from('{"_type":"https://in-toto.io/Statement/v0.1"}');
  const [attestation, attestationBytes] = document(OCI_MANIFEST, {
    config: raw(OCI_CONFIG, empty),
    layers: [raw('application/vnd.in-toto+json', statement)],
  });
  const marked = {
    ...attestation,
    platform: { os: 'unknown', architecture: 'unknown' },
    annotations: {
      'vnd.docker.reference.type': 'attestation-manifest',
      'vnd.docker.reference.digest': manifest.digest,
    },
  };
  const [chart, chartBytes] = document(OCI_MANIFEST, {
    artifactType: 'application/vnd.example.sbom',
    config: raw(EMPTY, empty),
    layers: [raw(OCI_LAYER, statement)],
    subject: raw(OCI_MANIFEST, blob(manifest.digest)),
  });
  const [level, levelBytes] = document(OCI_INDEX, {
    manifests: [{ ...manifest, annotations: undefined, platform: { ...platform, variant: 'v2' } }],
  });
  const otherBytes = Buffer.from(
    JSON.stringify({ ...JSON.parse(blob(config.digest).toString()), architecture: 's390x' }),
  );
  const [other, otherManifest] = document(OCI_MANIFEST, { config: raw(OCI_CONFIG, otherBytes), layers });
  const [both, bothBytes] = document(OCI_INDEX, {
    manifests: [
      { ...other, platform: { os: 'linux', architecture: 's390x' } },
      { ...manifest, annotations: undefined, platform },
    ],
  });
  const [several, severalBytes] = document(OCI_INDEX, {
    manifests: [{ ...manifest, annotations: undefined, platform }, marked, chart],
  });
  return [
    [
      '`docker save` 25 and later: layout and `manifest.json`',
      [
        ...layout([entry]),
        list(
          blobPath(config.digest),
          layers.map((l) => blobPath(l.digest)),
        ),
      ],
    ],
    ['`null` for every empty list and map', layout([named(nullManifest)], [nullBytes])],
    ['an attestation beside the image', layout([marked, entry], [empty, statement, attestationBytes])],
    ['an artifact with a subject beside the image', layout([entry, chart], [empty, statement, chartBytes])],
    [
      'an entry of an unknown type beside the image',
      layout([raw('application/vnd.example.unknown', statement), entry], [statement]),
    ],
    [
      'an index of the image, its attestation and an artifact',
      layout([named(several)], [empty, statement, attestationBytes, chartBytes, severalBytes]),
    ],
    [TWO_PLATFORMS, layout([named(both)], [otherBytes, otherManifest, bothBytes])],
    ['an index of `amd64/v2` only', layout([named(level)], [levelBytes])],
  ];
}

const architectureOf = ({ config, blob }: Image): string =>
  (JSON.parse(blob(config.digest).toString()) as { architecture: string }).architecture;

const blobPath = (digest: string): string => `blobs/${digest.replace(':', '/')}`;
const blobItem = (bytes: Buffer): Item => ({ name: blobPath(digestOf(bytes)), text: bytes });
