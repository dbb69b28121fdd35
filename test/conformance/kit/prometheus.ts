/** Debian's Prometheus and promtool: unpacked, not installed, so that no service of theirs is started. */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { aptGet } from '../../support/apt.js';
import { cacheDirectory } from '../../support/cache.js';

const packaging = fileURLToPath(new URL('../../../../packaging/', import.meta.url));
export const rulesFile = join(packaging, 'prometheus/ebbtide.rules.yml');
const dashboardFile = join(packaging, 'grafana/ebbtide.json');

/** The directory of the two programs, or the sentence that says why there is none. */
export function prometheus(): { bin: string } | { missing: string } {
  const directory = join(cacheDirectory(), 'prometheus');
  const bin = join(directory, 'usr/bin');
  if (existsSync(join(bin, 'promtool'))) return { bin };
  mkdirSync(directory, { recursive: true });
  const download = (): boolean =>
    spawnSync('apt-get', ['download', 'prometheus'], { cwd: directory }).status === 0;
  if (!download() && !(aptGet(['update', '-q']) && download()))
    return { missing: "Debian's package prometheus cannot be had: apt-get download prometheus" };
  const file = readdirSync(directory).find((name) => name.endsWith('.deb'))!;
  spawnSync('dpkg-deb', ['-x', join(directory, file), directory]);
  return existsSync(join(bin, 'promtool')) ? { bin } : { missing: `${file} has no promtool` };
}

interface Panel {
  title: string;
  targets: { expr: string }[];
}

/** The dashboard's queries, with its variables filled in as for all hosts and a range of five minutes. */
export function dashboardQueries(): { title: string; query: string }[] {
  const { panels } = JSON.parse(readFileSync(dashboardFile, 'utf8')) as { panels: Panel[] };
  return panels.flatMap(({ title, targets }) =>
    targets.map(({ expr }) => ({
      title,
      query: expr.replaceAll('$instance', '.*').replaceAll('$__rate_interval', '1m'),
    })),
  );
}

export interface Sample {
  metric: Record<string, string>;
  value: [number, string];
}
