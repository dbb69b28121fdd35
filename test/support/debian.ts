/** Tools that tests need from Debian's packages: installed when they are missing and we may, named when not. */
import { spawnSync } from 'node:child_process';

const packageOf: Readonly<Record<string, string>> = { setfattr: 'attr' };

const have = (tool: string): boolean => spawnSync('sh', ['-c', `command -v ${tool}`]).status === 0;

/** undefined when all tools are there (now), else the sentence to skip with. */
export function missingTools(tools: readonly string[]): string | undefined {
  const missing = tools.filter((t) => !have(t));
  if (missing.length === 0) return undefined;
  const packages = missing.map((t) => packageOf[t] ?? t);
  const remedy = `apt-get install ${packages.join(' ')}`;
  if (process.getuid?.() !== 0 || !have('apt-get')) return `needs ${missing.join(', ')}: ${remedy}`;
  const install = (): boolean =>
    spawnSync('apt-get', ['install', '-y', '-q', '--no-install-recommends', ...packages], {
      env: { ...process.env, DEBIAN_FRONTEND: 'noninteractive' },
      stdio: 'ignore',
      timeout: 240_000,
    }).status === 0;
  if (install()) return undefined;
  spawnSync('apt-get', ['update', '-q'], { stdio: 'ignore', timeout: 120_000 });
  return install() ? undefined : `could not install ${packages.join(', ')}: ${remedy}`;
}
