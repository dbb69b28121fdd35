/**
 * What the conformance runs need from Debian: installed when it is missing and we are root, else named in a sentence.
 * Used by main.ts here and by bench/daemon.
 */
import { spawnSync } from 'node:child_process';

/** containerd and its Go sources; Go builds the clients. */
export const judgePackages = ['containerd', 'golang-go', 'golang-github-containerd-containerd-dev'] as const;
/** To make real images (make-image.sh). */
export const imagePackages = ['mmdebstrap', 'umoci', 'skopeo', 'attr'] as const;

const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
const INSTALL_MS_MAX = 600_000;
/** Another apt may be at work. */
const lockWait = ['-o', 'DPkg::Lock::Timeout=120'];

/** Version of an installed package, or undefined. */
export function packageVersion(name: string): string | undefined {
  const form = `\${db:Status-Abbrev} \${Version}`;
  const { stdout } = spawnSync('dpkg-query', ['-W', '-f', form, name], { encoding: 'utf8' });
  const [status, version] = String(stdout ?? '').split(/\s+/);
  return status === 'ii' ? version : undefined;
}

/** undefined when all packages are there (now), else the sentence that says what to do. */
export function ensurePackages(names: readonly string[]): string | undefined {
  const missing = names.filter((name) => packageVersion(name) === undefined);
  if (missing.length === 0) return undefined;
  const remedy = `apt-get install ${missing.join(' ')}`;
  if (process.getuid?.() !== 0) return `${missing.join(', ')} not installed and this is not root: ${remedy}`;
  process.stderr.write(`installing ${missing.join(', ')}\n`);
  const apt = (...args: string[]): boolean =>
    spawnSync('apt-get', [...lockWait, ...args], { env, stdio: 'ignore', timeout: INSTALL_MS_MAX }).status ===
    0;
  const install = (): boolean => apt('install', '-y', '-q', '--no-install-recommends', ...missing);
  if (install() || (apt('update', '-q') && install())) return undefined;
  return `${missing.join(', ')} could not be installed: ${remedy}`;
}
