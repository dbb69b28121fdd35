/**
 * Selects the manifest of an index for this host: names as in Go (`amd64`, `arm64`), compatibility by the
 * rules of containerd's `platforms.Only`. Pure functions, except `hostPlatform`.
 */
import { invalidArgument } from '../errors.js';
import { labelOf } from '../model/labels.js';
import { cpuVariant, readCpuinfo } from './cpu.js';
import type { Descriptor, Platform } from './documents.js';
import { Annotation } from './media-types.js';

const architectures: Readonly<Record<string, string>> = {
  x86_64: 'amd64',
  'x86-64': 'amd64',
  aarch64: 'arm64',
  i386: '386',
  armhf: 'arm',
  armel: 'arm',
};
/** Node's names that differ from Go's. */
const nodeArchitectures: Readonly<Record<string, string>> = {
  x64: 'amd64',
  ia32: '386',
  ppc64: 'ppc64le',
  mipsel: 'mipsle',
};

let host: Platform | undefined;

/** The platform of the running process, with its processor's variant: `linux/amd64/v3`. */
export function hostPlatform(): Platform {
  if (host === undefined) {
    const architecture = nodeArchitectures[process.arch] ?? process.arch;
    const variant = cpuVariant(architecture, readCpuinfo());
    host = normalized({ os: 'linux', architecture, ...(variant !== undefined && { variant }) });
  }
  return { ...host };
}

/** `os/arch[/variant]`. InvalidArgument for anything else. */
export function parsePlatformText(text: string): Platform {
  const [os, architecture, variant, ...more] = text.toLowerCase().split('/');
  if (!os || !architecture || more.length > 0 || variant === '') {
    throw invalidArgument(`"${text}" is not a platform`, {
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
  let known = variant
    ?.toLowerCase()
    .replace(/^(?=\d)/, 'v')
    .replace(/\.0$/, '');
  if (arch === 'arm') known = lower === 'armel' ? 'v6' : (known ?? 'v7');
  // A missing variant means these.
  if ((arch === 'arm64' && known === 'v8') || (arch === 'amd64' && known === 'v1') || arch === '386')
    known = undefined;
  return { os: os.toLowerCase(), architecture: arch, ...(known !== undefined && { variant: known }) };
}

/** Whether two are one and the same, in any spelling. */
export const isSamePlatform = (a: Platform, b: Platform): boolean =>
  platformText(normalized(a)) === platformText(normalized(b));

/** Whether something is for one of the platforms: what names none is for all, and no platforms are all of them. */
export const isForAny = (platform: Platform | undefined, platforms: readonly Platform[]): boolean =>
  platform === undefined || platforms.length === 0 || platforms.some((one) => isSamePlatform(one, platform));

/**
 * How well something built for `offered` runs on `wanted`: 0 not at all, higher is better. A processor runs
 * what was built for older variants of it, and 64-bit ones run 32-bit code, which ranks lowest.
 */
export function platformRank(offered: Platform, wanted: Platform): number {
  const runnable = runnableOn(normalized(wanted));
  const at = runnable.indexOf(platformText(normalized(offered)));
  return at < 0 ? 0 : runnable.length - at;
}

/** Platforms whose code runs on a platform, best first. */
function runnableOn(platform: Platform): string[] {
  const { os, architecture, variant } = platform;
  const text = (arch: string, variants: readonly (string | undefined)[]): string[] =>
    variants.map((v) => platformText(normalized({ os, architecture: arch, variant: v })));
  const [major = 0, minor = 0] = (variant ?? '').replace(/^v/, '').split('.').map(Number);
  switch (architecture) {
    case 'amd64':
      return [
        ...text(architecture, [variant, ...downFrom(major, 2), undefined]),
        ...text('386', [undefined]),
      ];
    case 'arm':
      return text(architecture, [variant, ...downFrom(major, 5)]);
    case 'arm64': {
      // 9.0 includes all of 8.5.
      const nine = major === 9 ? downFrom(minor, 0, '9.') : [];
      const eight = downFrom(major === 9 ? minor + 5 : minor, 0, '8.');
      return [...text(architecture, [variant, ...nine, ...eight]), ...text('arm', downFrom(8, 5))];
    }
    default:
      // A platform without a variant runs everywhere.
      return text(architecture, [variant, undefined]);
  }
}

const MAX_VARIANT = 99;

/** `v<prefix>n` for n from `high`, if that is a number, down to `low`. */
function downFrom(high: number, low: number, prefix = ''): string[] {
  if (!(high >= low && high <= MAX_VARIANT)) return [];
  return Array.from({ length: high - low + 1 }, (_, i) => `v${prefix}${high - i}`);
}

/** Attestations and the like are listed in an index beside the manifests they describe. */
export const isAttestation = ({ platform, annotations }: Descriptor): boolean =>
  labelOf(annotations, Annotation.referenceType) !== undefined ||
  (platform?.os === 'unknown' && platform.architecture === 'unknown');
