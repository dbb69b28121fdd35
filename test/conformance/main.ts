/**
 * `npm run test:conformance`: judges `ebbtide serve` by software that is not ours, beside a real containerd.
 *
 *   node dist/test/conformance/main.js [PART…] [--containerd 1|2] [--only REGEXP] [--self] [--keep] [--json FILE]
 *                                       [--seconds N] [--clients N] [--seed N] [--sabotage]
 *                                       [--bytes N] [--rounds N]
 *
 * Parts: suites (containerd's exported test suites), ctr (a session of its command line tool), calls (raw calls,
 * also wrong ones), random (sequences of calls by --seed, --rounds of 20), proxy (a real containerd on our content store and snapshotter), load, clients (Go and ctr on large
 * layers: --bytes, --rounds), http2 (other implementations of HTTP/2), abuse (hostile clients, beside the same services on node:http2),
 * kit (the Debian package in a copy of this machine, with its units, alerts and dashboard); all of them when none is named. suites, ctr, calls, random and proxy run
 * beside containerd 1 and beside containerd 2 (releases.ts), unless `--containerd` picks one; the others beside 1. `--self` puts containerd in our place: every difference it shows is a fault of the harness. The second line
 * is for the load: `--sabotage` removes things before its check, which must then complain. Exit 1 when something
 * containerd can do fails here, 2 when nothing could be judged.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { cacheDirectory } from '../support/cache.js';
import { abuseVerdict, runAbuse } from './abuse/abuse.js';
import { compareCalls, runCalls } from './calls.js';
import { runClients } from './clients.js';
import { meantDifferences } from './ctr-deliberate.js';
import { ensurePackages, imagePackages, judgePackages } from './debian.js';
import { checkHttp2, http2Packages } from './http2/http2.js';
import { makeImages } from './images.js';
import { checkKit, kitMissing } from './kit/kit.js';
import { type LoadReport, loadVerdict, runLoad } from './load.js';
import { runBuiltIn, runProxied } from './proxy.js';
import { compareRandomCalls } from './random-calls.js';
import { Registry } from './registry.js';
import { type Release, releases, versionOf } from './releases.js';
import {
  abuseReport,
  callsReport,
  checksReport,
  clientsReport,
  loadReport,
  proxyReport,
  randomReport,
  suitesReport,
  transcriptReport,
} from './report.js';
import type { Side } from './servers.js';
import { runSuites, suiteRows, worse } from './suites.js';
import { asMeant, compareTranscripts, runTranscript, staleDifferences } from './transcript.js';

const parts = [
  'suites',
  'ctr',
  'calls',
  'random',
  'proxy',
  'load',
  'clients',
  'http2',
  'abuse',
  'kit',
] as const;
type Part = (typeof parts)[number];
/** What containerd 2 judges as well. */
const besideBoth: ReadonlySet<Part> = new Set(['suites', 'ctr', 'calls', 'random', 'proxy']);

interface Options {
  dir: string;
  ours: Side;
  release: Release;
  /** All that were asked for. */
  wanted: readonly Release[];
  only?: RegExp;
  seconds: number;
  clients: number;
  seed: number;
  sabotage: boolean;
  bytes: number;
  rounds: number;
}

interface Verdict {
  ok: boolean;
  report: string;
  result: unknown;
}

const judges: Record<Part, (options: Options) => Promise<Verdict>> = {
  suites: judgeSuites,
  ctr: judgeCtr,
  calls: judgeCalls,
  random: judgeRandom,
  proxy: judgeProxy,
  load: judgeLoad,
  clients: judgeClients,
  http2: judgeHttp2,
  abuse: judgeAbuse,
  kit: judgeKit,
};
/** As often as in the long run, where the server is killed every 30 s of 5 minutes. */
const KILLS = 10;
const KILL_SECONDS_MIN = 3;

async function judgeSuites({ dir, ours, release, only }: Options): Promise<Verdict> {
  const theirs = await runSuites('containerd', join(dir, 'suites-theirs'), release, only);
  const here = await runSuites(ours, join(dir, 'suites-ours'), release, only);
  const rows = suiteRows(theirs, here);
  const lost = worse(rows);
  return { ok: lost.length === 0, report: suitesReport(rows, lost, here.output), result: rows };
}

async function judgeCtr({ dir, ours, release }: Options): Promise<Verdict> {
  const images = makeImages();
  await using registry = await Registry.start(images);
  const theirs = await runTranscript('containerd', join(dir, 'ctr-theirs'), images, registry.host, release);
  const here = await runTranscript(ours, join(dir, 'ctr-ours'), images, registry.host, release);
  const meant = ours === 'containerd' ? [] : meantDifferences[release];
  const steps = compareTranscripts(theirs, here, meant);
  const stale = staleDifferences(steps, meant);
  const ok = asMeant(steps) && stale.length === 0;
  return { ok, report: transcriptReport(steps, { stale }), result: { steps, theirs, ours: here } };
}

async function judgeCalls({ dir, ours, release }: Options): Promise<Verdict> {
  const theirs = await runCalls('containerd', join(dir, 'calls-theirs'), release);
  const here = await runCalls(ours, join(dir, 'calls-ours'), release);
  const compared = compareCalls(theirs, here, release);
  // Between two containerds nothing is deliberate.
  if (ours === 'containerd') compared.stale = [];
  const ok = compared.differences.every((d) => d.reason !== undefined) && compared.stale.length === 0;
  return { ok, report: callsReport(compared), result: { compared, theirs, ours: here } };
}

async function judgeRandom({ dir, ours, release, seed, rounds }: Options): Promise<Verdict> {
  const compared = await compareRandomCalls(ours, join(dir, 'random'), release, seed, rounds * SEQUENCES);
  const ok = compared.differences.every((d) => d.reason !== undefined);
  return { ok, report: randomReport(compared), result: compared };
}

/** Of each round. */
const SEQUENCES = 20;

/** What a store may still have of images that are gone, as a part of what it had. */
const LEFT_MAX = 0.05;

async function judgeProxy({ dir, ours, release }: Options): Promise<Verdict> {
  const images = makeImages();
  const builtIn = await runBuiltIn(join(dir, 'proxy-theirs'), images, release);
  const proxied = await runProxied(ours, join(dir, 'proxy-ours'), images, release);
  const steps = compareTranscripts(builtIn.steps, proxied.steps);
  const freed = proxied.leftBytes < proxied.fullBytes * LEFT_MAX;
  const ok = freed && asMeant(steps);
  return { ok, report: proxyReport(steps, proxied, freed), result: { steps, builtIn, proxied } };
}

/** Clients of both releases together, unless one of them is picked. */
async function judgeLoad({ dir, ours, seconds, clients, seed, sabotage, wanted }: Options): Promise<Verdict> {
  const killSeconds = Math.max(KILL_SECONDS_MIN, seconds / KILLS);
  const options = { dir: join(dir, 'load'), seconds, killSeconds, clients, seed, sabotage, releases: wanted };
  const report: LoadReport = await runLoad(ours, options);
  const wrong = loadVerdict(report);
  // Of what was removed without the clients' knowledge each kind has to be noticed.
  const noticed = ['image', 'blob', 'container'].every((kind) =>
    report.faults?.some((fault) => new RegExp(`, ${kind} |: ${kind} .*not found`).test(fault)),
  );
  const ok = sabotage ? noticed : wrong.length === 0;
  return { ok, report: loadReport(report, wrong, options), result: report };
}

async function judgeClients({ dir, ours, bytes, rounds }: Options): Promise<Verdict> {
  const checks = await runClients(ours, join(dir, 'clients'), bytes, rounds);
  const ok = checks.every(({ passed, rounds: of }) => passed === of);
  return { ok, report: clientsReport(checks, bytes), result: checks };
}

async function judgeHttp2({ dir, seed }: Options): Promise<Verdict> {
  const missing = ensurePackages(http2Packages);
  if (missing !== undefined) throw new Error(missing);
  const checks = await checkHttp2(join(dir, 'http2'), seed);
  return {
    ok: checks.every(({ wrong }) => wrong === ''),
    report: checksReport('HTTP/2 beside other implementations', checks),
    result: checks,
  };
}

async function judgeKit({ dir }: Options): Promise<Verdict> {
  const missing = kitMissing();
  if (missing !== undefined) throw new Error(missing);
  const checks = await checkKit(join(dir, 'kit'));
  const ok = checks.every(({ wrong }) => wrong === '');
  return { ok, report: checksReport('the service kit in a copy of this machine', checks), result: checks };
}

/** Of every attack: long enough for the slowest attack to have said all it has to say, on either server. */
const ABUSE_SECONDS = 10;

async function judgeAbuse({ dir, only }: Options): Promise<Verdict> {
  const rows = await runAbuse({ dir: join(dir, 'abuse'), seconds: ABUSE_SECONDS, only }, (line) =>
    process.stderr.write(`${line}\n`),
  );
  const wrong = abuseVerdict(rows);
  return { ok: wrong.length === 0, report: abuseReport(rows, wrong), result: rows };
}

async function main(): Promise<number> {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      containerd: { type: 'string', multiple: true, default: [...releases] },
      only: { type: 'string' },
      self: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      json: { type: 'string' },
      seconds: { type: 'string', default: '60' },
      clients: { type: 'string', default: '32' },
      seed: { type: 'string', default: String(Date.now() % 1_000_000) },
      sabotage: { type: 'boolean', default: false },
      bytes: { type: 'string', default: String(150 * 2 ** 20) },
      rounds: { type: 'string', default: '3' },
    },
  });
  for (const name of ['seconds', 'clients', 'seed', 'bytes', 'rounds'] as const) {
    if (!/^\d+$/.test(values[name])) return complain(`--${name} takes a whole number, not ${values[name]}`);
  }
  const other = values.containerd.find((release) => !releases.includes(release as Release));
  if (other !== undefined) return complain(`--containerd takes ${releases.join(' or ')}, not ${other}`);
  const unknown = positionals.find((p) => !parts.includes(p as Part));
  if (unknown !== undefined) return complain(`no part is called ${unknown}: ${parts.join(', ')}`);
  if (process.getuid?.() !== 0) return complain('the suites mount file systems: run this as root');
  const wanted = positionals.length === 0 ? parts : (positionals as Part[]);
  const needed = wanted.every((part) => part === 'kit') ? [] : [...judgePackages, ...imagePackages];
  const missing = ensurePackages(needed);
  if (missing !== undefined) return complain(missing);
  const turns = wanted.flatMap((part) =>
    releases
      .filter((release) => (besideBoth.has(part) ? values.containerd.includes(release) : release === '1'))
      .map((release) => ({ part, release })),
  );
  const versions = new Map<Release, string>();
  try {
    for (const { release } of turns) if (needed.length > 0) versions.set(release, versionOf(release));
  } catch (error) {
    return complain(`${(error as Error).message}; \`--containerd 1\` does without`);
  }

  const dir = mkdtempSync(join(cacheDirectory(), 'run-'));
  const options: Omit<Options, 'dir' | 'release'> = {
    wanted: releases.filter((release) => values.containerd.includes(release)),
    ours: values.self ? 'containerd' : 'ebbtide',
    ...(values.only === undefined ? {} : { only: new RegExp(values.only) }),
    seconds: Number(values.seconds),
    clients: Number(values.clients),
    seed: Number(values.seed),
    sabotage: values.sabotage,
    bytes: Number(values.bytes),
    rounds: Number(values.rounds),
  };
  const results: Record<string, unknown> = {};
  let ok = true;
  try {
    for (const { part, release } of turns) {
      const version = versions.get(release);
      if (version !== undefined)
        process.stdout.write(`\n${options.ours} beside containerd ${version}: ${part}\n`);
      const own = join(dir, release);
      mkdirSync(own, { recursive: true });
      const verdict = await judges[part]({ ...options, release, dir: own });
      ok &&= verdict.ok;
      results[release === '1' ? part : `${part} beside ${release}`] = verdict.result;
      process.stdout.write(`\n${verdict.report}\n`);
    }
  } finally {
    if (values.keep) process.stdout.write(`kept: ${dir}\n`);
    else rmSync(dir, { recursive: true, force: true });
  }
  if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify(results, null, 1)}\n`);
  process.stdout.write(
    ok ? '\nnothing is worse than on containerd\n' : '\nWORSE than on containerd, see above\n',
  );
  return ok ? 0 : 1;
}

function complain(message: string): number {
  process.stderr.write(`${message}\n`);
  return 2;
}

process.exitCode = await main();
