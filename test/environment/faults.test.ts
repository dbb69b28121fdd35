/**
 * One call to the file system fails, or all from one on, with each error that a disk or a process has: every operation
 * succeeds or fails with an error of ours, nothing ends the process or prints a stack, and afterwards the store is what was
 * acknowledged. A sample; EBBTIDE_FAULTS=all goes through every call, EBBTIDE_FAULTS=ENOSPC,EIO through every call for these
 * errors, and EBBTIDE_SEED chooses another sample.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, realpathSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { Cli, layout } from '../cli/support.js';
import { Random } from '../support/random.js';
import { tempDir } from '../support/temp.js';
import { buildFaults, type Fault, FaultControl, faultErrors, faultsEnvironment } from './faults.js';
import type { Outcome } from './faults-workload.js';

const program = fileURLToPath(new URL('./faults-workload.js', import.meta.url));
const seed = Number(process.env.EBBTIDE_SEED ?? 1);
const wanted = process.env.EBBTIDE_FAULTS ?? '';
const isWhole = wanted !== '';
const errors = ['', 'all'].includes(wanted)
  ? faultErrors
  : faultErrors.filter((error) => wanted.split(',').includes(error));
assert.ok(errors.length > 0, `EBBTIDE_FAULTS takes all, or some of ${faultErrors}`);

interface Bench {
  /** Where calls are counted. */
  root: string;
  control: FaultControl;
  env: Record<string, string>;
}

async function bench(t: TestContext): Promise<Bench | undefined> {
  const dir = realpathSync(await tempDir(t, 'ebbtide-faults-'));
  const library = buildFaults(dir);
  if ('missing' in library) {
    t.skip(library.missing);
    return undefined;
  }
  const control = new FaultControl(join(dir, 'control'));
  t.after(() => control.close());
  const root = join(dir, 'root');
  mkdirSync(root);
  return { root, control, env: faultsEnvironment(library.path, control.path, root) };
}

/** Cases that went wrong. The others are run all the same; all are printed at the end. */
class Findings {
  readonly #found: string[] = [];

  async of<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      this.#found.push((error as Error).message);
      if (!isWhole) this.none();
      return undefined;
    }
  }

  none(): void {
    assert.equal(this.#found.length, 0, this.#found.join('\n\n'));
  }
}

/** One process that runs cases one after the other, and must outlive them. */
class Process {
  readonly #child;
  readonly #lines: AsyncIterator<string>;
  #stderr = '';

  constructor({ root, control, env }: Bench) {
    this.#child = spawn(process.execPath, [program, control.path, root], {
      env: { ...process.env, ...env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#child.stderr.on('data', (chunk: Buffer) => {
      this.#stderr += chunk.toString();
    });
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();
  }

  async run(fault: Fault): Promise<Outcome> {
    this.#child.stdin.write(`${JSON.stringify(fault)}\n`);
    const { done, value } = await this.#lines.next();
    const story = JSON.stringify(fault);
    if (done) {
      await this.end();
      assert.fail(
        `the process ended (${this.#child.signalCode ?? this.#child.exitCode}) ${story}\n${this.#stderr}`,
      );
    }
    const outcome = JSON.parse(value) as Outcome;
    const reported = `${story}: ${outcome.what}\n${outcome.failed.join('\n')}`;
    assert.equal(outcome.wrong.length, 0, `${reported}\nwrong: ${outcome.wrong.join('\n')}`);
    assert.equal(this.#stderr, '', `printed by the library, ${story}: ${outcome.what}`);
    return outcome;
  }

  async end(): Promise<void> {
    this.#child.stdin.end();
    if (this.#child.exitCode === null && this.#child.signalCode === null)
      await new Promise((resolve) => this.#child.on('exit', resolve));
  }
}

/** Cases in one process, or in as many as it takes when one of them goes wrong. */
class Workload implements AsyncDisposable {
  readonly #bench: Bench;
  #process: Process | undefined;

  constructor(setting: Bench) {
    this.#bench = setting;
  }

  async run(fault: Fault): Promise<Outcome> {
    this.#process ??= new Process(this.#bench);
    try {
      return await this.#process.run(fault);
    } catch (error) {
      await this[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#process?.end();
    this.#process = undefined;
  }
}

/** Numbers from 1 to `count`: all of them, or some. */
function numbers(random: Random, count: number, some: number): number[] {
  if (isWhole) return Array.from({ length: count }, (_, i) => i + 1);
  return Array.from({ length: some }, () => 1 + random.int(count));
}

test('given a call that fails, then errors are ours, and the store keeps what was acknowledged', async (t) => {
  const setting = await bench(t);
  if (setting === undefined) return;
  await using workload = new Workload(setting);
  const random = new Random(seed);
  const findings = new Findings();
  let fired = 0;
  const run = async (fault: Fault): Promise<void> => {
    const outcome = await findings.of(() => workload.run(fault));
    if ((outcome?.fired ?? 0) > 0) fired++;
  };
  for (const error of errors) {
    const { count } = await workload.run({ error, at: 0, lasting: false });
    assert.ok(count > 20, `${error}: ${count} calls counted`);
    for (const at of numbers(random, count, 3)) await run({ error, at, lasting: false });
    for (const at of numbers(random, count, 1)) await run({ error, at, lasting: true });
  }
  for (const at of numbers(random, 14, 2)) await run({ error: 'EIO', at, lasting: false, flushes: true });
  t.diagnostic(`${fired} calls failed`);
  findings.none();
  assert.ok(fired > 20, `only ${fired} calls failed`);
});

test('given an ingest whose flush fails, then its bytes are written again', async (t) => {
  const setting = await bench(t);
  if (setting === undefined) return;
  await using workload = new Workload(setting);
  let met = 0;
  for (let at = 1; at <= 14 && met === 0; at++) {
    const { what } = await workload.run({ error: 'EIO', at, lasting: false, flushes: true });
    if (/sync .*\/ingest\//.test(what)) met++;
  }
  assert.equal(met, 1, 'no flush of an ingest was met');
});

test('given LMDB as its package ships it, when calls fail, then one prints lines or ends the process', async (t) => {
  const setting = await bench(t);
  if (setting === undefined) return;
  const { pathname } = new URL('./without-guard.js', import.meta.url);
  // Threads too, which take no arguments of their own.
  const env = { ...setting.env, NODE_OPTIONS: `--import=${pathname}` };
  await using workload = new Workload({ ...setting, env });
  for (let at = 1; at <= 40; at++) {
    const found = await workload.run({ error: 'ENOSPC', at, lasting: true }).then(
      () => '',
      (error: Error) => error.message,
    );
    if (!/printed by the library|the process ended/.test(found)) continue;
    return t.diagnostic(found.split('\n')[0]!);
  }
  assert.fail('a protection that can be missed in 40 calls');
});

test('given few descriptors, then errors are ours, and the store keeps what was acknowledged', async (t) => {
  const setting = await bench(t);
  if (setting === undefined) return;
  await using workload = new Workload(setting);
  const findings = new Findings();
  for (const descriptors of isWhole ? numbers(new Random(seed), 40, 0) : [2, 9, 17, 26]) {
    const fault: Fault = { error: 'EMFILE', at: descriptors, lasting: true, descriptors };
    await findings.of(() => workload.run(fault));
  }
  findings.none();
});

/** Of each verb, with each error; else the calls are not seen. */
const CALLS_MIN = 8;

/** A verb, and the store it begins with. */
const verbs: readonly { args: string[]; of: 'empty' | 'filled' }[] = [
  { args: ['import', 'LAYOUT'], of: 'empty' },
  { args: ['images', 'rm', 'example.com/one:1'], of: 'filled' },
  { args: ['gc', '--full'], of: 'filled' },
  { args: ['export', 'example.com/two:1', '-o', 'ROOT/out.tar'], of: 'filled' },
  { args: ['serve'], of: 'filled' },
];

test('given a call that fails, then verbs end with a documented code and a sentence, and the store is sound', async (t) => {
  const setting = await bench(t);
  if (setting === undefined) return;
  const images = await layout(t);
  const empty = join(setting.root, 'empty');
  const filled = join(setting.root, 'filled');
  await new Cli(empty).init();
  await (await new Cli(filled).init()).ok('import', images.path, '--json');
  const random = new Random(seed);
  const findings = new Findings();
  const given = (args: readonly string[]): string[] =>
    args.map((arg) => arg.replace('LAYOUT', images.path).replace('ROOT', setting.root));
  for (const { args, of } of verbs) {
    for (const error of isWhole ? errors : [random.pick(errors)]) {
      const count = await attempt({ error, at: 0, lasting: false }, args, of);
      assert.ok(count > CALLS_MIN, `${args[0]}, ${error}: ${count} calls counted`);
      for (const at of numbers(random, count, 1))
        await findings.of(() => attempt({ error, at, lasting: false }, args, of));
      t.diagnostic(`${args[0]}, ${error}: ${count} calls`);
    }
  }
  findings.none();

  async function attempt(fault: Fault, args: readonly string[], of: 'empty' | 'filled'): Promise<number> {
    const root = join(setting!.root, 'store');
    rmSync(root, { recursive: true, force: true });
    cpSync(of === 'empty' ? empty : filled, root, { recursive: true });
    const { control } = setting!;
    control.arm(fault);
    const { code, signal, stderr } = await runOrServe(new Cli(root, setting!.env), given(args));
    const { count, what } = control.seen;
    control.none();
    const story = `${args.join(' ')} with ${JSON.stringify(fault)}: ${what}\n${stderr}`;
    assert.equal(signal, null, story);
    assert.ok([0, 5, 6].includes(code ?? -1), `exit code ${code}: ${story}`);
    // LMDB's lines come in ours, and by themselves they do not.
    const reported = stderr.replaceAll(/\(LMDB: [^)]*\)/g, '');
    assert.doesNotMatch(reported, /^ {4}at |Error:.*\n {4}at|Write error/m, story);
    // Each failure has a remedy.
    if (code !== 0 && args[0] !== 'serve')
      assert.match(stderr, /\((Unavailable|FailedPrecondition)\)\n {2}\S/, story);
    await sound(new Cli(root), of, args, code === 0, story);
    rmSync(join(setting!.root, 'out.tar'), { force: true });
    return count;
  }
});

async function runOrServe(cli: Cli, args: string[]) {
  if (args[0] !== 'serve') return cli.run(...args);
  const daemon = cli.start(...args);
  while (!daemon.stderr().includes('"serving"') && daemon.child.exitCode === null)
    await new Promise((resolve) => setTimeout(resolve, 20));
  daemon.child.kill('SIGTERM');
  return daemon.ended;
}

async function sound(
  cli: Cli,
  of: 'empty' | 'filled',
  args: readonly string[],
  isDone: boolean,
  story: string,
): Promise<void> {
  const done = await cli.run('doctor', '--check', '--json');
  assert.equal(done.code, 0, `${story}\n${done.stderr}`);
  assert.match(done.stdout, /"state":\s*"sound"/, `${story}\n${done.stdout}`);
  const listed = await cli.run('images', 'ls', '--json');
  assert.equal(listed.code, 0, `${story}\n${listed.stderr}`);
  const names = new Set((JSON.parse(listed.stdout) as { name: string }[]).map(({ name }) => name));
  const wasRemoved = args[0] === 'images';
  if (of === 'filled' || isDone) assert.ok(names.has('example.com/two:1'), story);
  if ((of === 'filled' || isDone) && !wasRemoved) assert.ok(names.has('example.com/one:1'), story);
  if (wasRemoved && isDone) assert.ok(!names.has('example.com/one:1'), story);
}
