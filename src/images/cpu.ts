/** Determines the variant of this machine's processor. Called by platforms.ts for the host's platform. */
import { readFileSync } from 'node:fs';

/** The features that each level of x86-64 adds (the psABI's lists), by Linux's names. */
const amd64Levels: readonly (readonly string[])[] = [
  ['cx16', 'lahf_lm', 'popcnt', 'pni', 'sse4_1', 'sse4_2', 'ssse3'],
  ['abm', 'avx', 'avx2', 'bmi1', 'bmi2', 'f16c', 'fma', 'movbe', 'xsave'],
  ['avx512f', 'avx512bw', 'avx512cd', 'avx512dq', 'avx512vl'],
];

/**
 * From the text of /proc/cpuinfo: `v1` to `v4` for amd64, `v5` to `v8` for arm; undefined when it does not
 * show.
 */
export function cpuVariant(architecture: string, cpuinfo: string): string | undefined {
  const field = (name: string): string | undefined =>
    new RegExp(`^${name}\\s*:\\s*(.*)$`, 'im').exec(cpuinfo)?.[1]?.trim();
  if (architecture === 'amd64') {
    const flags = new Set(field('flags')?.split(/\s+/));
    const missing = amd64Levels.findIndex((level) => !level.every((flag) => flags.has(flag)));
    return `v${1 + (missing < 0 ? amd64Levels.length : missing)}`;
  }
  if (architecture !== 'arm') return undefined;
  const version = /^\d+/.exec(field('CPU architecture') ?? '')?.[0];
  // The first Raspberry Pi reports 7 and is 6.
  if (version === '7' && /^ARMv6-compatible/i.test(field('model name') ?? field('Processor') ?? ''))
    return 'v6';
  return version === undefined ? undefined : `v${version}`;
}

export function readCpuinfo(): string {
  try {
    return readFileSync('/proc/cpuinfo', 'latin1');
  } catch {
    // Without /proc only the baseline is certain to run.
    return '';
  }
}
