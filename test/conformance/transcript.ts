/**
 * Runs the `ctr` session of transcript-steps.ts on a server and compares two sessions line by line. Standard output
 * must be equal after normalising; of an error its kind and the exit status. Runs as root (mounts).
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DockerRegistry, dockerRegistryMissing } from '../support/docker-registry.js';
import type { MeantDifference } from './ctr-deliberate.js';
import type { MadeImages } from './images.js';
import { errorKind, type LineDifference, lineDifferences, Normaliser } from './normalise.js';
import { environmentOf, type Release } from './releases.js';
import { Server, type Side } from './servers.js';
import { type Section, sectionsOf, transferSections } from './transcript-steps.js';

export interface StepResult {
  section: string;
  line: string;
  status: string;
  stdout: string[];
  stderr: string[];
}

const STEP_MS_MAX = 60_000;
const prelude = `
list() {
  cat >"$WORK/listed" && (tar -tzvf "$WORK/listed" --numeric-owner --full-time 2>/dev/null ||
    tar -tvf "$WORK/listed" --numeric-owner --full-time) | sed 's/ [0-9]*-[0-9-]* [0-9:.]* \\(.*\\.wh\\.\\)/ <now> \\1/'
}
`;

/** Some blobs are diffs, whose bytes are not the same on both sides: whiteouts carry times. */
const blobEvents = /(\/content\/(?:create|delete) \{"digest":")[^"]+"(,"size":\d+)?/g;

export async function runTranscript(
  side: Side,
  dir: string,
  images: MadeImages,
  registry: string,
  release: Release = '1',
): Promise<StepResult[]> {
  const args = side === 'ebbtide' && release !== '1' ? ['--transfer'] : [];
  await using server = await Server.start(side, { dir: join(dir, side), release, args });
  const session = new Session(server, images, { ...toolsOf(release), REGISTRY: registry });
  const events = spawn('ctr', ['--address', server.address, 'events'], {
    env: environmentOf(release),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const heard = collect(events);
  const results: StepResult[] = [];
  try {
    await sleep(500); // A subscription is not acknowledged.
    results.push(...(await session.run(sectionsOf(release))));
    await sleep(500);
    events.kill('SIGTERM');
    const { stdout } = await heard;
    results.push({
      ...{ section: 'events', line: 'ctr events', status: '0' },
      ...{ stdout: session.normaliser.lines(stdout.replace(blobEvents, '$1<digest>"')), stderr: [] },
    });
    if (release !== '1') results.push(...(await throughTransfer(session, join(dir, 'private'))));
    return results;
  } finally {
    events.kill('SIGTERM');
    session.close();
  }
}

/** Each side has a registry of its own to push to. */
async function throughTransfer(session: Session, dir: string): Promise<StepResult[]> {
  const missing = dockerRegistryMissing();
  if (missing !== undefined) throw new Error(missing);
  await using registry = await DockerRegistry.start(dir, { auth: 'basic' });
  return await session.run(transferSections, { PRIVATE: registry.host });
}

/** Variables by which a session runs the ctr of a release. From 2 on it asks the server for what it once did itself, unless told. */
export const toolsOf = (release: Release): NodeJS.ProcessEnv => ({
  PATH: environmentOf(release).PATH,
  LOCAL: release === '1' ? '' : '--local',
});

/** A working directory and an environment in which steps are run against one server, one after the other. */
export class Session {
  readonly normaliser: Normaliser;
  readonly #work: string;
  readonly #env: NodeJS.ProcessEnv;

  /** `also`: more variables of the environment; `roots`: directories of back ends of this one. */
  constructor(server: Server, images: MadeImages, also: NodeJS.ProcessEnv, roots: readonly string[] = []) {
    this.#work = join(server.dir, 'work');
    mkdirSync(this.#work);
    this.normaliser = new Normaliser({ roots: [server.root, ...roots], work: this.#work });
    const { app, base, config, layer } = images.digests;
    this.#env = {
      ...process.env,
      ...{ CONTAINERD_ADDRESS: server.address, CONTAINERD_NAMESPACE: 'conform' },
      ...{ IMAGES: images.dir, WORK: this.#work, APP: app, BASE: base, CONFIG: config, LAYER: layer },
      ...also,
    };
  }

  async run(parts: readonly Section[], also: NodeJS.ProcessEnv = {}): Promise<StepResult[]> {
    const results: StepResult[] = [];
    const env = { ...this.#env, ...also };
    for (const { title, steps } of parts) {
      for (const line of steps) results.push(await runStep(title, line, this.#work, env, this.normaliser));
    }
    return results;
  }

  /** A session that failed half-way may leave mounts. */
  close(): void {
    const points = readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .map((line) => line.split(' ')[4] ?? '')
      .filter((point) => point.startsWith(`${this.#work}/`));
    for (const point of points.reverse()) spawnSync('umount', ['-l', point]);
  }
}

async function runStep(
  section: string,
  line: string,
  cwd: string,
  env: NodeJS.ProcessEnv,
  normaliser: Normaliser,
): Promise<StepResult> {
  const child = spawn('sh', ['-c', prelude + line], {
    cwd,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: STEP_MS_MAX,
    killSignal: 'SIGKILL',
  });
  const { stdout, stderr, status } = await collect(child);
  return { section, line, status, stdout: normaliser.lines(stdout), stderr: normaliser.lines(stderr) };
}

async function collect(child: ChildProcess): Promise<{ stdout: string; stderr: string; status: string }> {
  const texts = { stdout: '', stderr: '' };
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream]?.setEncoding('utf8').on('data', (chunk: string) => {
      texts[stream] += chunk;
    });
  }
  const status = await new Promise<string>((resolve, reject) => {
    child.on('error', reject).on('close', (code, signal) => resolve(String(signal ?? code)));
  });
  return { ...texts, status };
}

export interface StepComparison {
  section: string;
  line: string;
  /** Lines compared. */
  lines: number;
  differences: LineDifference[];
  /** Why they are meant to be. */
  reason?: string;
  /** An error of the same kind in other words. */
  wording?: { theirs: string; ours: string };
}

/** Plugins that ebbtide stands for; a real containerd lists its runtimes, monitors and inner services as well. */
const comparedPlugins =
  /^TYPE |^io\.containerd\.(content\.v1 content|snapshotter\.v1 (native|overlayfs)|grpc\.v1 (containers|content|diff|events|healthcheck|images|introspection|leases|namespaces|sandboxes|snapshots|version)|sandbox\.store\.v1 local) /;

/** ctr says so of every server that is not of its own version. */
const versionWarning = /^WARNING: (version|revision) mismatch$/;

/** ctr asks for progress while it pulls, and cancels the question when it is done: a matter of moments. */
const lateProgress = /msg="(active check failed|failed to get content info)" error=".*context canceled"/;

export function compareTranscripts(
  theirs: readonly StepResult[],
  ours: readonly StepResult[],
  meant: readonly MeantDifference[] = [],
): StepComparison[] {
  return theirs.map((their, i) => {
    const our = ours[i]!;
    const { section, line } = their;
    const [a, b] = [their, our].map((r) => comparedLines(r));
    let differences = lineDifferences(a!, b!);
    // ebbtide publishes what newer containerds publish too.
    if (section === 'events') differences = differences.filter((d) => d.side === 'containerd');
    const reason = reasonOf(their, differences, meant);
    const [theirWords, ourWords] = [their, our].map((r) => r.stderr.join('\n'));
    return {
      ...{ section, line, lines: a!.length, differences },
      ...(reason === undefined ? {} : { reason }),
      ...(differences.length === 0 && theirWords !== ourWords
        ? { wording: { theirs: theirWords!, ours: ourWords! } }
        : {}),
    };
  });
}

function reasonOf(
  { section, line }: StepResult,
  differences: readonly LineDifference[],
  meant: readonly MeantDifference[],
): string | undefined {
  if (differences.length === 0) return undefined;
  return meant.find(
    (m) =>
      m.section === section &&
      (m.line ?? line) === line &&
      differences.every((d) => m.differing.test(d.line)),
  )?.reason;
}

/** Meant differences that no longer show: their entry has to go. */
export const staleDifferences = (
  steps: readonly StepComparison[],
  meant: readonly MeantDifference[],
): string[] =>
  meant
    .filter(({ reason }) => steps.every((step) => step.reason !== reason))
    .map(({ section, line }) => line ?? section);

/** Whether a session is as it has to be. */
export const asMeant = (steps: readonly StepComparison[]): boolean =>
  steps.every((step) => step.differences.length === 0 || step.reason !== undefined);

function comparedLines(result: StepResult): string[] {
  const { section, line, stdout, stderr, status } = result;
  let shown = stdout;
  // Their order is that of the start, another one in every release.
  if (line === 'ctr plugins ls') shown = stdout.filter((l) => comparedPlugins.test(`${l} `)).sort();
  if (section === 'events') shown = sortedRemovals(stdout);
  const complaints = stderr.filter((l) => !versionWarning.test(l) && !lateProgress.test(l)).map(errorKind);
  return [...shown, ...complaints, `exit ${status}`];
}

/** What a collection removes has no order: snapshots that are removed one after the other are compared as a set. */
function sortedRemovals(lines: readonly string[]): string[] {
  const isRemoval = (line: string | undefined): boolean => line?.includes(' /snapshot/remove ') === true;
  const sorted: string[] = [];
  for (let i = 0; i < lines.length; ) {
    let end = i + 1;
    while (isRemoval(lines[i]) && isRemoval(lines[end])) end++;
    sorted.push(...lines.slice(i, end).sort());
    i = end;
  }
  return sorted;
}
