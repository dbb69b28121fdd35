/** Tools that tests need from Debian's packages: installed when they are missing and we may, named when not. */
import { spawnSync } from 'node:child_process';
import { aptInstall } from './apt.js';

const packageOf: Readonly<Record<string, string>> = {
  setfattr: 'attr',
  groff: 'groff-base',
  'systemd-analyze': 'systemd',
  'systemd-socket-activate': 'systemd',
  xz: 'xz-utils',
};

const have = (tool: string): boolean => spawnSync('sh', ['-c', `command -v ${tool}`]).status === 0;

/** undefined when all tools are there (now), else the sentence to skip with. */
export function missingTools(tools: readonly string[]): string | undefined {
  const missing = tools.filter((t) => !have(t));
  return install(
    missing,
    missing.map((t) => packageOf[t] ?? t),
  );
}

/** The same of packages that bring no tool to look for. */
export function missingPackages(packages: readonly string[]): string | undefined {
  const isThere = (name: string): boolean =>
    spawnSync('dpkg-query', ['-s', name], { encoding: 'utf8' }).stdout?.includes(
      'Status: install ok installed',
    ) ?? false;
  const missing = packages.filter((name) => !isThere(name));
  return install(missing, missing);
}

function install(missing: readonly string[], packages: readonly string[]): string | undefined {
  if (missing.length === 0) return undefined;
  const remedy = `apt-get install ${packages.join(' ')}`;
  if (process.getuid?.() !== 0 || !have('apt-get')) return `needs ${missing.join(', ')}: ${remedy}`;
  return aptInstall(packages) ? undefined : `could not install ${packages.join(', ')}: ${remedy}`;
}
