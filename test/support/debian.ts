/** Tools that tests need from Debian's packages: installed when they are missing and we may, named when not. */
import { spawnSync } from 'node:child_process';
import { aptInstall } from './apt.js';

const packageOf: Readonly<Record<string, string>> = { setfattr: 'attr', groff: 'groff-base' };

const have = (tool: string): boolean => spawnSync('sh', ['-c', `command -v ${tool}`]).status === 0;

/** undefined when all tools are there (now), else the sentence to skip with. */
export function missingTools(tools: readonly string[]): string | undefined {
  const missing = tools.filter((t) => !have(t));
  if (missing.length === 0) return undefined;
  const packages = missing.map((t) => packageOf[t] ?? t);
  const remedy = `apt-get install ${packages.join(' ')}`;
  if (process.getuid?.() !== 0 || !have('apt-get')) return `needs ${missing.join(', ')}: ${remedy}`;
  return aptInstall(packages) ? undefined : `could not install ${packages.join(', ')}: ${remedy}`;
}
