/**
 * Which manifest of an index is for this host. Names as in Go (`amd64`, `arm64`), whatever the writer used.
 * Pure functions.
 */
import { invalidArgument } from '../errors.js';
import { labelOf } from '../model/labels.js';
import type { Descriptor, Platform } from './documents.js';
import { Annotation } from './media-types.js';

const architectures: Readonly<Record<string, Platform['architecture']>> = {
  x64: 'amd64',
  x86_64: 'amd64',
  'x86-64': 'amd64',
  aarch64: 'arm64',
  ia32: '386',
  i386: '386',
  armhf: 'arm',
  ppc64: 'ppc64le',
};

/** The platform of the running process. */
export function hostPlatform(): Platform {
  return normalized({ os: 'linux', architecture: process.arch });
}

/** `os/arch[/variant]`. InvalidArgument for anything else. */
export function parsePlatformText(text: string): Platform {
  const [os, architecture, variant, ...more] = text.toLowerCase().split('/');
  if (!os || !architecture || more.length > 0 || variant === '') {
    throw invalidArgument(`"${text}" is no platform`, {
      object: text,
      remedy: 'write os/arch, like linux/amd64',
    });
  }
  return normalized({ os, architecture, ...(variant && { variant }) });
}

export const platformText = ({ os, architecture, variant }: Platform): string =>
  [os, architecture, ...(variant ? [variant] : [])].join('/');

function normalized({ os, architecture, variant }: Platform): Platform {
  const lower = architecture.toLowerCase();
  const arch = architectures[lower] ?? lower;
  let known = variant?.toLowerCase().replace(/^(?=\d)/, 'v');
  if (arch === 'arm') known ??= 'v7';
  // The plain variants are what leaving it out means.
  if ((arch === 'arm64' && known === 'v8') || (arch === 'amd64' && known === 'v1')) known = undefined;
  return { os: os.toLowerCase(), architecture: arch, ...(known !== undefined && { variant: known }) };
}

/**
 * How well something made for `offered` runs on `wanted`: 0 not at all, more is better. 32-bit ARM runs what older
 * variants were made for; other variants must be the same, and leaving one out fits every host.
 */
export function platformRank(offered: Platform, wanted: Platform): number {
  const a = normalized(offered);
  const b = normalized(wanted);
  if (a.os !== b.os || a.architecture !== b.architecture) return 0;
  if (a.variant === b.variant) return 100;
  if (a.architecture === 'arm') {
    const version = (variant: string | undefined): number => Number(variant?.slice(1) ?? 7);
    return version(a.variant) < version(b.variant) ? version(a.variant) : 0;
  }
  return a.variant === undefined ? 50 : 0;
}

/** Attestations and the like stand in an index beside the manifests they describe. */
export const isAttestation = ({ platform, annotations }: Descriptor): boolean =>
  labelOf(annotations, Annotation.referenceType) !== undefined ||
  (platform?.os === 'unknown' && platform.architecture === 'unknown');
