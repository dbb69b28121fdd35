/**
 * The service kit as its users meet it: the Debian package installed, its units started by systemd, its rules and its
 * dashboard evaluated by Debian's Prometheus, which scrapes the daemon.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { Item } from '../../archive/support.js';
import { Blobs, named, tarOfFiles } from '../../images/fixtures.js';
import type { Check } from '../report.js';
import { Machine, type Ran } from './machine.js';
import { dashboardQueries, prometheus, rulesFile, type Sample } from './prometheus.js';

const repository = fileURLToPath(new URL('../../../../', import.meta.url));
const SERVICE = 'ebbtide.service';
const METRICS = '127.0.0.1:9464';
const PROMETHEUS = '127.0.0.1:9090';

/** Queries that have a result only after something went wrong. */
const mayBeEmpty = new Set(['Failed calls by code', 'Connections closed, by reason']);

/** undefined, or why nothing can be checked here. */
export function kitMissing(): string | undefined {
  const found = prometheus();
  if ('missing' in found) return found.missing;
  return existsSync('/lib/systemd/systemd') ? undefined : 'systemd is not installed: apt-get install systemd';
}

export async function checkKit(dir: string): Promise<Check[]> {
  const checks: Check[] = [];
  const check = (name: string, wrong: string | false | undefined): void => {
    checks.push({ name, wrong: wrong || '' });
  };
  const deb = build(dir);
  const machine = new Machine(join(dir, 'machine'));
  try {
    install(machine, deb, check);
    await machine.boot();
    await makeImages(join(machine.root, IMAGES));
    await service(machine, check);
    await watched(machine, dir, check);
    removed(machine, check);
  } finally {
    await machine[Symbol.asyncDispose]();
    rmSync(deb);
  }
  return checks;
}

const IMAGES = '/opt/images.tar';

/** cap_net_raw, permitted and effective (vfs_cap_data of revision 2). */
const CAPABILITY = Buffer.from('0100000200200000000000000000000000000000', 'hex');

/** Two images whose layers need what the unit lets the daemon do. */
async function makeImages(file: string): Promise<void> {
  const blobs = new Blobs();
  const base: Item[] = [
    { name: 'dev/null', type: 'char', major: 1, minor: 3 },
    {
      name: 'bin/su',
      text: 'su',
      mode: 0o4755,
      uid: 1000,
      xattrs: new Map([['security.capability', CAPABILITY]]),
    },
    { name: 'gone', text: 'x'.repeat(5000) },
  ];
  const above: Item[] = [
    { name: '.wh.gone' },
    { name: 'dir/.wh..wh..opq' },
    { name: 'dir/new', text: 'new' },
  ];
  const one = await blobs.image([base, above]);
  const two = await blobs.image([[{ name: 'two', text: '2'.repeat(9000) }]]);
  const entries = [named(one.manifest, 'example.com/one:1'), named(two.manifest, 'example.com/two:1')];
  writeFileSync(file, await tarOfFiles(blobs.layout(entries)));
}

type Report = (name: string, wrong: string | false | undefined) => void;

const failure = ({ code, output }: Ran): string | undefined =>
  code === 0 ? undefined : `${code}: ${output}`;

function build(dir: string): string {
  const script = join(repository, 'packaging/deb/build.mjs');
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, dir], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`${script}: ${stderr}`);
  return stdout.trim();
}

function install(machine: Machine, deb: string, check: Report): void {
  const inside = '/opt/ebbtide.deb';
  writeFileSync(join(machine.root, inside), readFileSync(deb));
  check('the package is installed', failure(machine.chroot('dpkg', '-i', inside)));
  check(
    'the units are enabled',
    failure(machine.chroot('systemctl', 'is-enabled', 'ebbtide.socket', SERVICE)),
  );
  const units = ['ebbtide.socket', SERVICE].map((name) => `/lib/systemd/system/${name}`);
  const verified = machine.chroot('systemd-analyze', 'verify', ...units);
  check('systemd-analyze verify has nothing to say', failure(verified) ?? verified.output);
  check('the manual page is found', failure(machine.chroot('man', '-w', 'ebbtide')));
  const complete = 'source /usr/share/bash-completion/completions/ebbtide && complete -p ebbtide';
  check('bash completes it', failure(machine.chroot('bash', '-c', complete)));
}

const show = (machine: Machine, property: string): string =>
  machine.in('systemctl', 'show', '--value', '-p', property, SERVICE).output.trim();

/** Waits; returns what is wrong at the end of the patience. */
async function until(what: string, holds: () => boolean, ms = 30_000): Promise<string | undefined> {
  for (const end = Date.now() + ms; Date.now() < end; await sleep(200)) if (holds()) return undefined;
  return `not within ${ms / 1000} s: ${what}`;
}

async function service(machine: Machine, check: Report): Promise<void> {
  const journal = (): string => machine.in('journalctl', '--no-pager', '-o', 'cat', '-u', SERVICE).output;
  const isActive = (): boolean => show(machine, 'ActiveState') === 'active';
  check('the unit starts, and says that it is ready', (await until('active', isActive)) && journal());
  const status = show(machine, 'StatusText');
  check('its status says what it serves', !/^serving \/var\/lib\/ebbtide on \/run\//.test(status) && status);
  const imported = machine.in('ebbtide', 'import', IMAGES, '--unpack', 'overlayfs');
  check('images are imported and unpacked, with devices, capabilities and whiteouts', failure(imported));
  const overlays = machine.in('ebbtide', 'doctor').output;
  check('overlays work within its limits', !/overlays +work/.test(overlays) && overlays);
  check('a backup goes to /var/backups', failure(machine.in('ebbtide', 'backup', '/var/backups/ebbtide')));
  const outside = machine.in('ebbtide', 'backup', '/srv/ebbtide');
  check('a backup elsewhere is refused', outside.code === 0 && 'it was written');

  const config = join('/etc/ebbtide/config.json');
  const write = `printf '{"metrics":"${METRICS}","logLevel":"debug"}' > ${config}`;
  machine.in('sh', '-c', write);
  check('systemctl reload', failure(machine.in('systemctl', 'reload', SERVICE)));
  const reloaded = await until('the reload in the journal', () =>
    journal().includes('"changed":["logLevel"]'),
  );
  check('a reload takes the new configuration over', reloaded);

  const pid = show(machine, 'MainPID');
  machine.in('systemctl', 'stop', SERVICE);
  check(
    'a client starts it when it has stopped',
    failure(machine.in('ebbtide', '--address', '/run/ebbtide/ebbtide.sock', 'images', 'ls')),
  );
  check('as another process', show(machine, 'MainPID') === pid && pid);
  machine.in('systemctl', 'kill', '-s', 'KILL', '--kill-who=main', SERVICE);
  const restarted = await until('a restart', () => show(machine, 'NRestarts') === '1' && isActive());
  check('systemd starts it again when it was killed', restarted);

  const dropIn = '/run/systemd/system/ebbtide.service.d';
  machine.in(
    'sh',
    '-c',
    `mkdir -p ${dropIn} && printf '[Service]\\nWatchdogSec=4\\n' > ${dropIn}/watchdog.conf`,
  );
  machine.in('systemctl', 'daemon-reload');
  machine.in('systemctl', 'restart', SERVICE);
  await sleep(6000);
  check('it notifies the watchdog that it works', show(machine, 'NRestarts') !== '0' && journal());
  machine.in('systemctl', 'kill', '-s', 'STOP', '--kill-who=main', SERVICE);
  const revived = await until('a restart', () => show(machine, 'NRestarts') === '1' && isActive());
  check('the watchdog restarts it when it hangs', revived);
}

async function watched(machine: Machine, dir: string, check: Report): Promise<void> {
  const found = prometheus();
  if ('missing' in found) throw new Error(found.missing);
  const promtool = (args: string[], input?: string): Ran => {
    const { status, stdout, stderr } = spawnSync(join(found.bin, 'promtool'), args, {
      encoding: 'utf8',
      input,
    });
    return { code: status, output: `${stdout}${stderr}` };
  };
  check('promtool check rules', failure(promtool(['check', 'rules', rulesFile])));
  const tests = join(repository, 'test/conformance/kit/ebbtide.rules.test.yml');
  check('promtool test rules', failure(promtool(['test', 'rules', tests])));
  // Something of every kind: calls, garbage, a collection.
  check('an image is removed', failure(machine.in('ebbtide', 'images', 'rm', '--sync', 'example.com/two:1')));
  const page = machine.in('curl', '-s', `http://${METRICS}/metrics`).output;
  const linted = promtool(['check', 'metrics'], page);
  check('promtool check metrics', failure(linted));

  const config = join(dir, 'prometheus.yml');
  const scrape = `scrape_configs:\n  - job_name: ebbtide\n    static_configs:\n      - targets: ['${METRICS}']\n`;
  writeFileSync(
    config,
    `global: { scrape_interval: 1s, evaluation_interval: 1s }\nrule_files: ['${rulesFile}']\n${scrape}`,
  );
  const data = join(dir, 'prometheus');
  const server = machine.spawnOnNetwork(join(found.bin, 'prometheus'), [
    `--config.file=${config}`,
    `--storage.tsdb.path=${data}`,
    `--web.listen-address=${PROMETHEUS}`,
    '--log.level=error',
  ]);
  try {
    const ask = <T>(path: string): T =>
      JSON.parse(machine.in('curl', '-sG', `http://${PROMETHEUS}/api/v1/${path}`).output || '{}').data as T;
    const query = (text: string): Sample[] => {
      const { output } = machine.in(
        'curl',
        '-sG',
        `http://${PROMETHEUS}/api/v1/query`,
        '--data-urlencode',
        `query=${text}`,
      );
      return (JSON.parse(output || '{}') as { data?: { result: Sample[] } }).data?.result ?? [];
    };
    check('Prometheus scrapes it', await until('up', () => query('up{job="ebbtide"} == 1').length === 1));
    // Rates need two scrapes, the collection above needs one before it.
    await sleep(4000);
    const queries = dashboardQueries();
    const empty = queries.filter(
      ({ title, query: text }) => query(text).length === 0 && !mayBeEmpty.has(title),
    );
    const answered = `${queries.length} queries of the dashboard have results`;
    check(answered, empty.map(({ title, query: text }) => `${title}: ${text}`).join('; '));
    interface Rule {
      name: string;
      health: string;
      state: string;
      lastError?: string;
    }
    const { groups } = ask<{ groups: { rules: Rule[] }[] }>('rules');
    const rules = groups.flatMap((group) => group.rules);
    const bad = rules.filter((rule) => rule.health !== 'ok' || rule.state === 'firing');
    check(
      `${rules.length} alert rules are evaluated, none fires`,
      bad.map((rule) => `${rule.name} ${rule.health} ${rule.state} ${rule.lastError ?? ''}`).join('; '),
    );
  } finally {
    server.kill('SIGKILL');
    rmSync(data, { recursive: true, force: true });
  }
}

function removed(machine: Machine, check: Report): void {
  check('the package is purged', failure(machine.in('dpkg', '-P', 'ebbtide')));
  const left = ['/usr/lib/ebbtide', '/etc/ebbtide', '/usr/bin/ebbtide', '/run/ebbtide/ebbtide.sock'].filter(
    (path) => machine.in('test', '-e', path).code === 0,
  );
  check('nothing but the store is left', left.join(', '));
  check(
    'the store is left',
    failure(machine.in('test', '-e', '/var/lib/ebbtide/io.containerd.metadata.v1.ebbtide/meta.mdb')),
  );
}
