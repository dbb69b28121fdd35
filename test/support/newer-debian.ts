/**
 * Programs and Go sources of a newer Debian, unpacked into the cache directory: this machine's packages stay as they are. apt
 * gets lists and a state of its own there, and checks signatures as ever. Used by test/conformance, and by test/etcd when asked.
 *
 *   node dist/test/support/newer-debian.js GROUP    prints the folder that a group is unpacked in
 *
 * A group stays as it was unpacked first; remove its folder to have what the suite has now. EBBTIDE_NEWER_SUITE (default
 * `forky`) and EBBTIDE_DEBIAN_MIRROR name another place to take it from.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { cacheDirectory } from './cache.js';

interface Group {
  packages: readonly string[];
  /** Unpacked with them when these come with their dependencies; none does otherwise. */
  dependencies?: RegExp;
  /** Large, and imported by nothing that is built here. */
  without?: RegExp;
}

const groups = {
  containerd: { packages: ['containerd'] },
  etcd: { packages: ['etcd-server', 'etcd-client'] },
  go: {
    packages: ['golang-go', 'golang-github-containerd-containerd-dev'],
    dependencies: /^golang-/,
    without:
      /-(aws|cloudflare|envoyproxy|mongodb|nats-io|apache-arrow|ulikunitz|pierrec|google-cloud|google-api|gonum|pjbgf|nxadm)-|golang-x-(tools|image|crypto)/,
  },
} as const satisfies Record<string, Group>;
export type NewerGroup = keyof typeof groups;

const suite = process.env.EBBTIDE_NEWER_SUITE || 'forky';
const mirror = process.env.EBBTIDE_DEBIAN_MIRROR || 'http://deb.debian.org/debian';
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
const APT_MS_MAX = 600_000;

export interface Newer {
  /** Holds `usr/bin`, `usr/share` … of the packages. */
  dir: string;
  /** Version of each package. */
  versions: Readonly<Record<string, string>>;
}

/** The group, unpacked now if it was not yet. Throws one sentence that says what is missing. */
export function newerDebian(name: NewerGroup): Newer {
  const base = join(cacheDirectory(), `newer-${suite}`);
  const dir = join(base, name);
  if (!existsSync(dir)) unpack(groups[name], base, dir);
  return { dir, versions: JSON.parse(readFileSync(join(dir, 'versions.json'), 'utf8')) };
}

function unpack(group: Group, base: string, dir: string): void {
  const what = group.packages.join(', ');
  process.stderr.write(`unpacking ${what} of Debian ${suite}\n`);
  const apt = aptOf(base);
  const draft = `${dir}.${process.pid}`;
  const debs = join(draft, 'debs');
  try {
    mkdirSync(debs, { recursive: true });
    const updated = apt('apt-get', ['update', '-q'], draft);
    if (!updated.ok) {
      const why = /not signed/.test(updated.words) ? updated.words : `${mirror} was not reached`;
      throw new Error(`${what} of Debian ${suite} missing: ${why}`);
    }
    const names = withDependencies(group, apt, draft);
    const got = apt('apt-get', ['download', '-q', ...names], debs);
    if (!got.ok) throw new Error(`${what} of Debian ${suite} missing: ${got.words}`);
    const versions: Record<string, string> = {};
    for (const file of readdirSync(debs)) {
      const deb = join(debs, file);
      const { stdout } = run('dpkg-deb', ['-W', deb], draft);
      const [name = '', version = ''] = stdout.trim().split('\t');
      versions[name] = version;
      const done = run('dpkg-deb', ['-x', deb, draft], draft);
      if (done.status !== 0) throw new Error(`${file} does not unpack: ${done.stderr}`);
    }
    rmSync(debs, { recursive: true });
    writeFileSync(join(draft, 'versions.json'), `${JSON.stringify(versions, null, 1)}\n`);
    // Another run may have been faster.
    if (!existsSync(dir)) renameSync(draft, dir);
  } finally {
    rmSync(draft, { recursive: true, force: true });
  }
}

type Apt = (program: string, args: readonly string[], cwd: string) => { ok: boolean; words: string };

/** apt with everything of its own but this machine's proxies and the like. */
function aptOf(base: string): Apt {
  const at = (...parts: string[]): string => join(base, 'apt', ...parts);
  for (const dir of ['lists/partial', 'cache/archives/partial', 'etc'])
    mkdirSync(at(dir), { recursive: true });
  writeFileSync(at('status'), '');
  writeFileSync(at('sources.list'), `deb [signed-by=${keyring}] ${mirror} ${suite} main\n`);
  const settings = {
    'Dir::State': at(),
    'Dir::State::lists': at('lists'),
    'Dir::State::status': at('status'),
    'Dir::Cache': at('cache'),
    'Dir::Etc::sourcelist': at('sources.list'),
    'Dir::Etc::sourceparts': at('etc'),
    'Dir::Etc::preferences': at('etc/none'),
    'Dir::Etc::preferencesparts': at('etc'),
    // The cache directory is this user's only, so apt's own user could not write there.
    'APT::Sandbox::User': 'root',
    'Acquire::Retries': '2',
  };
  // What this machine does after an update is about its own packages.
  const cleared = ['APT::Update::Post-Invoke', 'APT::Update::Post-Invoke-Success', 'DPkg::Post-Invoke'];
  const conf = [
    ...cleared.map((name) => `#clear ${name};`),
    ...Object.entries(settings).map(([name, value]) => `${name} ${JSON.stringify(value)};`),
  ];
  writeFileSync(at('apt.conf'), `${conf.join('\n')}\n`);
  return (program, args, cwd) => {
    const done = run('flock', [at('lock'), program, '-c', at('apt.conf'), ...args], cwd);
    // A list that could not be fetched is a warning to apt.
    const failed = done.status !== 0 || /^[WE]: Failed to fetch/m.test(done.stderr);
    return { ok: !failed, words: failed ? (done.stderr.trim().split('\n').at(-1) ?? '') : done.stdout };
  };
}

function withDependencies({ packages, dependencies, without }: Group, apt: Apt, cwd: string): string[] {
  if (dependencies === undefined) return [...packages];
  const plan = apt('apt-get', ['install', '-s', '-q', '--no-install-recommends', ...packages], cwd);
  if (!plan.ok) throw new Error(`${packages.join(', ')} of Debian ${suite} missing: ${plan.words}`);
  return [...plan.words.matchAll(/^Inst (\S+) /gm)]
    .map(([, name = '']) => name)
    .filter((name) => dependencies.test(name) && !without?.test(name));
}

function run(
  program: string,
  args: readonly string[],
  cwd: string,
): { status: number | null; stdout: string; stderr: string } {
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    ...{ cwd, encoding: 'utf8', timeout: APT_MS_MAX, maxBuffer: 1 << 26 },
    env: { ...process.env, LC_ALL: 'C', DEBIAN_FRONTEND: 'noninteractive' },
  });
  return { status, stdout: stdout ?? '', stderr: error?.message ?? stderr ?? '' };
}

function main([name = '']: readonly string[]): number {
  if (!Object.hasOwn(groups, name)) {
    process.stderr.write(`no group is called ${name}: ${Object.keys(groups).join(', ')}\n`);
    return 2;
  }
  try {
    process.stdout.write(`${newerDebian(name as NewerGroup).dir}\n`);
    return 0;
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    return 1;
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) process.exitCode = main(process.argv.slice(2));
