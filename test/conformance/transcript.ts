/**
 * Runs the `ctr` session of transcript-steps.ts on a server and compares two sessions line by line. Standard output
 * must be equal after normalising; of an error its kind and the exit status. Runs as root (mounts).
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { MadeImages } from './images.js';
import { errorKind, type LineDifference, lineDifferences, Normaliser } from './normalise.js';
import { Server, type Side } from './servers.js';
import { type Section, sections } from './transcript-steps.js';

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

/** One of the deleted blobs is a diff, whose bytes are not the same on both sides: whiteouts carry times. */
const deletedBlob = /(\/content\/delete \{"digest":")[^"]+/g;

export async function runTranscript(
  side: Side,
  dir: string,
  images: MadeImages,
  registry: string,
): Promise<StepResult[]> {
  await using server = await Server.start(side, { dir: join(dir, side) });
  const session = new Session(server, images, { REGISTRY: registry });
  const events = spawn('ctr', ['--address', server.address, 'events'], { stdio: ['ignore', 'pipe', 'pipe'] });
  const heard = collect(events);
  const results: StepResult[] = [];
  try {
    await sleep(500); // A subscription is not acknowledged.
    results.push(...(await session.run(sections)));
    await sleep(500);
  } finally {
    events.kill('SIGTERM');
    session.close();
  }
  const { stdout } = await heard;
  results.push({
    ...{ section: 'events', line: 'ctr events', status: '0' },
    ...{ stdout: session.normaliser.lines(stdout.replace(deletedBlob, '$1<digest>')), stderr: [] },
  });
  return results;
}

/** A working directory and an environment in which steps are run against one server, one after the other. */
export class Session {
  readonly normaliser: Normaliser;
  readonly #work: string;
  readonly #env: NodeJS.ProcessEnv;

  /** `also`: more variables of the environment; `roots`: directories of back ends of this one. */
  constructor(
    server: Server,
    images: MadeImages,
    also: Record<string, string>,
    roots: readonly string[] = [],
  ) {
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

  async run(parts: readonly Section[]): Promise<StepResult[]> {
    const results: StepResult[] = [];
    for (const { title, steps } of parts) {
      for (const line of steps)
        results.push(await runStep(title, line, this.#work, this.#env, this.normaliser));
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
  /** An error of the same kind in other words. */
  wording?: { theirs: string; ours: string };
}

/** Plugins that ebbtide stands for; a real containerd lists its runtimes, monitors and inner services as well. */
const comparedPlugins =
  /^TYPE |^io\.containerd\.(content\.v1 content|snapshotter\.v1 (native|overlayfs)|grpc\.v1 (containers|content|diff|events|healthcheck|images|introspection|leases|namespaces|snapshots|version)) /;

/** ctr says so of every server that is not of its own version. */
const versionWarning = /^WARNING: (version|revision) mismatch$/;

/** ctr asks for progress while it pulls, and cancels the question when it is done: a matter of moments. */
const lateProgress = /msg="(active check failed|failed to get content info)" error=".*context canceled"/;

export function compareTranscripts(
  theirs: readonly StepResult[],
  ours: readonly StepResult[],
): StepComparison[] {
  return theirs.map((their, i) => {
    const our = ours[i]!;
    const { section, line } = their;
    const [a, b] = [their, our].map((r) => comparedLines(r));
    let differences = lineDifferences(a!, b!);
    // ebbtide publishes what newer containerds publish too.
    if (section === 'events') differences = differences.filter((d) => d.side === 'containerd');
    const [theirWords, ourWords] = [their, our].map((r) => r.stderr.join('\n'));
    return {
      ...{ section, line, lines: a!.length, differences },
      ...(differences.length === 0 && theirWords !== ourWords
        ? { wording: { theirs: theirWords!, ours: ourWords! } }
        : {}),
    };
  });
}

function comparedLines(result: StepResult): string[] {
  const { line, stdout, stderr, status } = result;
  const shown = line === 'ctr plugins ls' ? stdout.filter((l) => comparedPlugins.test(`${l} `)) : stdout;
  const complaints = stderr.filter((l) => !versionWarning.test(l) && !lateProgress.test(l)).map(errorKind);
  return [...shown, ...complaints, `exit ${status}`];
}
