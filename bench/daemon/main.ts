/**
 * Measures `ebbtide serve` beside a real containerd 1.6, and 2.1 of a newer Debian, in one run, both through containerd's own Go client over a unix
 * socket. As root; installs what it needs from Debian.
 *
 *   npm run bench -- daemon [--quick] [--rounds N] [--bytes N] [--seconds N] [--bulk N] [--markdown]
 *                                    [--json FILE] [--dir DIR] [--node-http2] [--without-2] [--only calls|images|process]
 *
 * All servers have the same image records before the clock starts (`--bulk`, and 10,000 to list), all are up the
 * whole time, figures are taken from one after the other and are medians over the rounds.
 * `--node-http2` adds the daemon's services on node:http2 (node-http2/server.ts).
 */
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { ensurePackages, judgePackages, packageVersion } from '../../test/conformance/debian.js';
import { versionOf } from '../../test/conformance/releases.js';
import { Server } from '../../test/conformance/servers.js';
import { callGroups, type Measured, type Plan, type Row, takeFigures } from './figures.js';
import { Images } from './images.js';
import { clientProgram, runClient } from './measure.js';
import { processGroups } from './process.js';
import { markdown, tableText } from './table.js';

const full: Plan = {
  bytes: 2 ** 30,
  seconds: 2,
  clients: [1, 32],
  deletes: 3200,
  lists: 10_000,
  collections: 10,
  garbage: 200,
  rate: 200,
  bulk: 100_000,
};
const quick: Plan = { ...full, bytes: 2 ** 27, seconds: 0.5, deletes: 640, collections: 3, bulk: 10_000 };

interface Result {
  machine: string;
  versions: string;
  rounds: number;
  plan: Plan;
  rows: Row[];
}

interface Which {
  node: boolean;
  second: boolean;
  only: string | undefined;
}

async function run(plan: Plan, rounds: number, dir: string, which: Which): Promise<Result> {
  const { bulk } = plan;
  const said = (text: string): void => void process.stderr.write(`${text}\n`);
  clientProgram();
  said(`seeding ${plan.lists + bulk} images on each side`);
  const dirs = { containerd: join(dir, 'containerd'), ebbtide: join(dir, 'ebbtide') };
  const database = join(dirs.containerd, 'root/io.containerd.metadata.v1.bolt');
  mkdirSync(database, { recursive: true, mode: 0o711 });
  await runClient('seed', { db: join(database, 'meta.db'), count: bulk, lists: plan.lists });
  seedOurs(join(dirs.ebbtide, 'root'), plan.lists, bulk);

  const second = join(dir, 'containerd2');
  if (which.second) cpSync(dirs.containerd, second, { recursive: true });

  await using theirs = await Server.start('containerd', { dir: dirs.containerd });
  await using newer = which.second
    ? await Server.start('containerd', { dir: second, release: '2' })
    : undefined;
  await using ours = await Server.start('ebbtide', { dir: dirs.ebbtide, args: ['--transfer'] });
  await using other = which.node ? await onNodeHttp2(join(dir, 'node-http2'), plan.lists, bulk) : undefined;
  await using images =
    which.only === undefined || which.only === 'images' ? await Images.make(join(dir, 'images')) : undefined;
  const servers: Measured[] = [
    { column: 'containerd', server: theirs },
    { column: 'ebbtide', server: ours },
    ...(newer === undefined ? [] : [{ column: 'containerd2' as const, server: newer }]),
    ...(other === undefined ? [] : [{ column: 'nodeHttp2' as const, server: other }]),
  ];
  const groups = [
    ...(which.only === undefined || which.only === 'calls' ? callGroups : []),
    ...(images === undefined ? [] : [['images', images.take] as const]),
  ];
  // First, all of them: a server that was just started would be slower in the figures that follow.
  const starts =
    which.only === undefined || which.only === 'process'
      ? await takeFigures(servers, processGroups, plan, rounds, said)
      : [];
  const rows = [...starts, ...(await takeFigures(servers, groups, plan, rounds, said))];
  const all = cpus();
  return {
    machine: `${all.length} × ${all[0]?.model.trim()}, Linux ${release()}`,
    versions: `Node ${process.version}, containerd ${packageVersion('containerd')}${which.second ? ` and ${versionOf('2')}` : ''}, Go client ${packageVersion('golang-github-containerd-containerd-dev')}`,
    rounds,
    plan,
    rows,
  };
}

/** The daemon's services on Node's own HTTP/2, which its own server is there instead of. */
function onNodeHttp2(dir: string, lists: number, bulk: number): Promise<Server> {
  seedOurs(join(dir, 'root'), lists, bulk);
  return Server.start('node-http2', { dir });
}

function seedOurs(root: string, lists: number, bulk: number): void {
  const program = fileURLToPath(new URL('./seed.js', import.meta.url));
  const { status, stderr } = spawnSync(process.execPath, [program, root, String(lists), String(bulk)], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`the store could not be seeded: ${stderr}`);
}

/** Returns the exit code. */
async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      quick: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      bytes: { type: 'string' },
      seconds: { type: 'string' },
      bulk: { type: 'string' },
      json: { type: 'string' },
      'node-http2': { type: 'boolean', default: false },
      'without-2': { type: 'boolean', default: false },
      only: { type: 'string' },
      markdown: { type: 'boolean', default: false },
      dir: { type: 'string', default: tmpdir() },
    },
  });
  const missing =
    process.getuid?.() === 0 ? ensurePackages(judgePackages) : 'a containerd can only be started by root';
  if (missing !== undefined) {
    process.stderr.write(`${missing}\n`);
    return 2;
  }
  const number = (text: string | undefined, otherwise: number): number => {
    const value = Number(text ?? otherwise);
    if (!(value > 0)) throw new Error(`${text} is not a number above 0`);
    return value;
  };
  const given = values.quick ? quick : full;
  const plan = {
    ...given,
    bytes: number(values.bytes, given.bytes),
    seconds: number(values.seconds, given.seconds),
    bulk: number(values.bulk, given.bulk),
  };
  const dir = mkdtempSync(join(values.dir, 'bench-daemon-'));
  try {
    const rounds = number(values.rounds, values.quick ? 1 : 3);
    const which = { node: values['node-http2'], second: !values['without-2'], only: values.only };
    const result = await run(plan, rounds, dir, which);
    if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(result, null, 1)}\n`);
    const table = values.markdown ? markdown(result.rows) : tableText(result.rows);
    process.stdout.write(`${result.machine}\n${result.versions}\n${table}\n`);
  } finally {
    rmSync(dir, { recursive: true, force: true });
  }
  return 0;
}

process.exitCode = await main();
