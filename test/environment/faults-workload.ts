/**
 * The program whose calls fail: for each case it copies a store, works on it while one call fails (or all from one on),
 * and then, with nothing failing any more, looks whether the store is what was acknowledged. A case is a line of JSON on
 * standard input, its outcome a line on standard output.
 *
 * Usage: node faults-workload.js CONTROL DIRECTORY
 */
import { execFileSync } from 'node:child_process';
import { closeSync, cpSync, openSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import type { CallContext } from '../../src/context.js';
import type { DB } from '../../src/db.js';
import { EbbtideError } from '../../src/errors.js';
import { digestOf } from '../../src/model/digest.js';
import { layout, openDB } from '../../src/open.js';
import { readBlob, writeBlob } from '../../src/stores/content/content-helpers.js';
import { errnoOf, fsError } from '../../src/system/system-errors.js';
import { type Fault, FaultControl } from './faults.js';

export interface Outcome {
  fault: Fault;
  /** Calls that could have failed, those that did, and the first of them. */
  count: number;
  fired: number;
  what: string;
  /** Operations that failed, with their errors. */
  failed: string[];
  /** What is wrong; empty when all is well. */
  wrong: string[];
}

const ctx: CallContext = { namespace: 'test' };
const root = { labels: { 'containerd.io/gc.root': 'x' } };
const bytesOf = (name: string): Buffer => Buffer.from(`${name} `.repeat(2000));
const FILE = 'file';

interface Step {
  name: string;
  /** Steps without which it cannot be done. */
  after?: string[];
  run(db: DB): Promise<unknown>;
}

const image = (name: string) => {
  const bytes = bytesOf(name);
  const target = { mediaType: 'application/x', digest: digestOf(bytes), size: bytes.length };
  return { name, target, labels: { 'containerd.io/gc.ref.snapshot.native': `s-${name}` } };
};

const makeImage = (name: string): Step[] => [
  { name: `prepare ${name}`, run: (db) => prepare(db, name) },
  {
    name: `commit ${name}`,
    after: [`prepare ${name}`],
    run: (db) => db.snapshotter('native')!.commit(ctx, `s-${name}`, `p-${name}`, root),
  },
  {
    name: `blob ${name}`,
    run: (db) => writeBlob(db.content, ctx, `r-${name}`, bytesOf(name), image(name).target, root),
  },
  {
    name: `image ${name}`,
    after: [`blob ${name}`, `commit ${name}`],
    run: (db) => db.images.create(ctx, image(name)),
  },
];

async function prepare(db: DB, name: string): Promise<void> {
  const mounts = await db.snapshotter('native')!.prepare(ctx, `p-${name}`, '', root);
  const path = join(mounts[0]!.source, FILE);
  try {
    writeFileSync(path, name);
  } catch (error) {
    // As a user of the container would see it.
    throw fsError('write', path, error);
  }
}

/** Made without faults: what is there before. */
const before = [...makeImage('old'), ...makeImage('gone')];

const steps: readonly Step[] = [
  ...makeImage('a'),
  { name: 'remove gone', run: (db) => db.images.delete(ctx, 'gone') },
  { name: 'unroot blob', run: (db) => db.content.delete(ctx, image('gone').target.digest) },
  { name: 'unroot snapshot', run: (db) => db.snapshotter('native')!.remove(ctx, 's-gone') },
  { name: 'gc', run: (db) => db.garbageCollect() },
  ...makeImage('b'),
  { name: 'gc full', run: (db) => db.garbageCollect(ctx, { fullSweep: true }) },
  { name: 'read', run: (db) => readBlob(db.content, ctx, image('old').target) },
  { name: 'list', run: (db) => db.images.list(ctx) },
  { name: 'read beside', run: readBeside },
];

/** As another process would. */
async function readBeside(db: DB): Promise<void> {
  const at = dirname(db.host.content.root!);
  await using reader = await openDB({ root: at, readOnly: true, log: () => undefined });
  await reader.images.list(ctx);
  await reader.snapshotter('native')!.walk(ctx, () => undefined);
}

class Case {
  readonly #fault: Fault;
  readonly #root: string;
  readonly #control: FaultControl;
  readonly #done = new Set<string>();
  readonly #tried = new Set<string>();
  #seen: FaultControl['seen'] | undefined;
  readonly failed: string[] = [];
  readonly wrong: string[] = [];

  constructor(fault: Fault, at: string, control: FaultControl) {
    this.#fault = fault;
    this.#root = at;
    this.#control = control;
  }

  async run(): Promise<Outcome> {
    if (this.#fault.descriptors === undefined) this.#control.arm(this.#fault);
    else limitDescriptors(this.#fault.descriptors);
    const db = await this.#step('open', () => this.#open());
    if (db !== undefined) {
      await this.#work(db);
      // Half of the stores are closed while calls fail, half are used again first.
      if (this.#fault.at % 2 === 1) {
        this.#disarm();
        await this.#again(db);
      }
      await this.#step('close', () => db.close());
    }
    this.#disarm();
    const { count, fired, what } = this.#seen!;
    await this.#verify();
    return { fault: this.#fault, count, fired, what, failed: this.failed, wrong: this.wrong };
  }

  #disarm(): void {
    this.#seen ??= this.#control.seen;
    this.#control.none();
    if (this.#fault.descriptors !== undefined) limitDescriptors(undefined);
  }

  #open(): Promise<DB> {
    const log = (level: string, message: string): void => {
      if (/^TypeError|Cannot read prop|is not a function/.test(message))
        this.wrong.push(`${level}: ${message}`);
    };
    return openDB({ root: this.#root, snapshotters: ['native'], log });
  }

  async #work(db: DB): Promise<void> {
    for (const { name, after = [], run } of steps) {
      if (after.some((other) => !this.#done.has(other))) continue;
      this.#tried.add(name);
      await this.#step(name, () => run(db));
      if (name.startsWith('blob') && !this.#done.has(name)) await this.#reopen(db, name.slice(5));
    }
  }

  /** Bytes whose flush failed can be read, and flushed again with success, and are lost all the same. */
  async #reopen(db: DB, name: string): Promise<void> {
    if (this.#fault.lasting || !/^f(data)?sync .*\/ingest\//.test(this.#control.seen.what)) return;
    const writer = await db.content.writer(ctx, `r-${name}`);
    const { offset } = await writer.status();
    await writer.close();
    if (offset > 0)
      this.wrong.push(`${offset} bytes of the ingest whose flush failed would not be written again`);
  }

  /** With nothing failing, what had failed works. */
  async #again(db: DB): Promise<void> {
    for (const name of ['gc full', 'read', 'list']) {
      const found = steps.find((step) => step.name === name);
      try {
        await found!.run(db);
      } catch (error) {
        this.wrong.push(`${name}, when nothing failed any more: ${error}`);
      }
    }
  }

  async #step<T>(name: string, run: () => Promise<T>): Promise<T | undefined> {
    try {
      const result = await run();
      this.#done.add(name);
      return result;
    } catch (error) {
      this.failed.push(`${name}: ${error}`);
      const trouble = troubleWith(error);
      if (trouble !== undefined) this.wrong.push(`${name}: ${trouble}: ${(error as Error)?.stack ?? error}`);
      return undefined;
    }
  }

  async #verify(): Promise<void> {
    try {
      const db = await this.#open();
      try {
        await this.#compare(db, 'after opening');
        await db.garbageCollect(ctx, { fullSweep: true });
        await this.#compare(db, 'after a collection');
        await this.#leftovers(db);
        for (const difference of db.engine.verifyGraph())
          this.wrong.push(`graph: ${JSON.stringify(difference)}`);
      } finally {
        await db.close();
      }
    } catch (error) {
      this.wrong.push(`the store cannot be used afterwards: ${(error as Error).stack}`);
    }
  }

  async #compare(db: DB, when: string): Promise<void> {
    const images = new Set((await db.images.list(ctx)).map(({ name }) => name));
    const check = async (what: string, work: () => Promise<unknown>): Promise<void> => {
      await work().catch((error: unknown) => this.wrong.push(`${when}: ${what}: ${error}`));
    };
    for (const name of ['old', 'gone', 'a', 'b']) {
      const wasRemoved = name === 'gone' && this.#tried.has('remove gone');
      const isThere = images.has(name);
      if (wasRemoved && this.#done.has('remove gone') && isThere) this.wrong.push(`${when}: gone is back`);
      const isOld = name === 'old' || name === 'gone';
      const made = isOld ? !wasRemoved : this.#done.has(`image ${name}`);
      if (made && !isThere) this.wrong.push(`${when}: image ${name} is lost`);
      const untouched = (what: string): boolean => (name === 'gone' ? !this.#tried.has(what) : true);
      const hasBlob = isOld ? untouched('unroot blob') : this.#done.has(`blob ${name}`);
      const hasSnapshot = isOld ? untouched('unroot snapshot') : this.#done.has(`commit ${name}`);
      if (hasBlob) await check(`blob ${name}`, () => this.#blob(db, name));
      if (hasSnapshot) await check(`snapshot ${name}`, () => this.#snapshot(db, `s-${name}`, name));
      else if (this.#done.has(`prepare ${name}`) && !this.#tried.has(`commit ${name}`))
        await check(`snapshot p-${name}`, () => this.#snapshot(db, `p-${name}`, name));
    }
  }

  async #blob(db: DB, name: string): Promise<void> {
    const { target } = image(name);
    const bytes = await readBlob(db.content, ctx, target);
    if (!bytesOf(name).equals(Buffer.from(bytes))) throw new Error('other bytes');
  }

  async #snapshot(db: DB, key: string, name: string): Promise<void> {
    const snapshots = db.snapshotter('native')!;
    await snapshots.stat(ctx, key);
    const view = `v-${key}`;
    const mounts = key.startsWith('s-')
      ? await snapshots.view(ctx, view, key)
      : await snapshots.mounts(ctx, key);
    const text = readFileSync(join(mounts[0]!.source, FILE), 'utf8');
    if (key.startsWith('s-')) await snapshots.remove(ctx, view);
    if (text !== name) throw new Error('other bytes');
  }

  /** After a full collection the disk has what the records name, and nothing else. */
  async #leftovers(db: DB): Promise<void> {
    const blobs = new Set<string>();
    await db.content.walk(ctx, ({ digest }) => void blobs.add(digest.replace('sha256:', '')));
    for (const name of readdirSync(join(layout.content(this.#root), 'blobs', 'sha256')))
      if (!blobs.has(name)) this.wrong.push(`blob ${name.slice(0, 12)} is left over`);
    let snapshots = 0;
    await db.snapshotter('native')!.walk(ctx, () => void snapshots++);
    const directories = readdirSync(join(layout.snapshotter(this.#root, 'native'), 'snapshots'));
    if (directories.length !== snapshots)
      this.wrong.push(
        `${directories.length} snapshot directories for ${snapshots} snapshots: ${directories}`,
      );
  }
}

const taken: number[] = [];

/** Takes all descriptors of the process but some; undefined: gives them back. */
function limitDescriptors(left: number | undefined): void {
  for (const fd of taken.splice(0)) closeSync(fd);
  if (left === undefined) return;
  execFileSync('prlimit', ['--pid', String(process.pid), `--nofile=${DESCRIPTORS}:`]);
  try {
    for (;;) taken.push(openSync('/dev/null', 'r'));
  } catch (error) {
    if (errnoOf(error) !== 'EMFILE') throw error;
  }
  for (const fd of taken.splice(0, left)) closeSync(fd);
}
const DESCRIPTORS = 256;

/** Undefined for an error as it should be. */
function troubleWith(error: unknown): string | undefined {
  if (!(error instanceof EbbtideError)) return 'not an error of ours';
  if (error.kind !== 'Unavailable' && error.kind !== 'FailedPrecondition') return `kind ${error.kind}`;
  if (!error.remedy) return 'no remedy';
  if (!error.object) return 'no object';
  return undefined;
}

async function main(controlPath: string, directory: string): Promise<void> {
  const control = new FaultControl(controlPath);
  const template = join(directory, 'template');
  const db = await openDB({ root: template, snapshotters: ['native'] });
  await db.namespaces.create({}, 'test');
  for (const { run } of before) await run(db);
  await db.close();
  let number = 0;
  for await (const line of createInterface({ input: process.stdin })) {
    const fault = JSON.parse(line) as Fault;
    const at = join(directory, `case-${++number}`);
    cpSync(template, at, { recursive: true });
    const outcome = await new Case(fault, at, control).run();
    process.stdout.write(`${JSON.stringify(outcome)}\n`);
    rmSync(at, { recursive: true, force: true });
  }
  control.close();
}

if (process.argv[1] === import.meta.filename) await main(process.argv[2]!, process.argv[3]!);
