/**
 * The transcript of docs/operator.md, made again: its shape is compared with the page, its numbers with the file system. With
 * EBBTIDE_WRITE_DOCS=1 the page is written.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, statfsSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { canMount } from '../../src/backends/mounts.js';
import { layout as paths } from '../../src/open.js';
import { tempDir } from '../support/temp.js';
import { fillOperatorStore } from './operator-store.js';
import { commandLine, noTerminal, onTerminal, tooLong } from './terminal.js';

const PAGE = fileURLToPath(new URL('../../../docs/operator.md', import.meta.url));
const COLUMNS = 100;
const SHOWN_ROOT = '/var/lib/ebbtide';
/** Used of each hundred bytes of the disk. */
const USED_PERCENT = 95;

const duOf = (path: string): number =>
  Number(execFileSync('du', ['-s', '-B1', path], { encoding: 'utf8' }).split('\t')[0]);
const entriesOf = (dir: string): string[] => readdirSync(dir).map((name) => join(dir, name));
const sum = (sizes: readonly number[]): number => sizes.reduce((total, size) => total + size, 0);

/** Says something and lets it be looked at. */
class Story {
  readonly root: string;
  readonly #dir: string;
  readonly #texts: string[] = [];

  constructor(root: string, dir: string) {
    this.root = root;
    this.#dir = dir;
  }

  /** What a person would type, and what comes of it. */
  ebbtide(words: readonly string[], code = 0): string {
    const env = { EBBTIDE_ROOT: this.root };
    const noise = join(this.#dir, 'stderr');
    const { status, lines } = onTerminal(
      COLUMNS,
      `cd ${this.#dir} && ${commandLine(words)} 2> ${noise}`,
      env,
    );
    const said = lines.join('\n');
    assert.equal(status, code, `${words.join(' ')}: ${said}${readFileSync(noise, 'utf8')}`);
    assert.deepEqual(tooLong(lines, COLUMNS), []);
    this.#report(`ebbtide ${words.join(' ')}`, said);
    return said;
  }

  shell(line: string): string {
    const { status, stdout } = spawnSync('sh', ['-c', line], { encoding: 'utf8' });
    assert.equal(status, 0, line);
    this.#report(line, stdout.trimEnd());
    return stdout;
  }

  #report(typed: string, said: string): void {
    this.#texts.push(`$ ${typed}\n${said}`.replaceAll(this.root, SHOWN_ROOT).trimEnd());
  }

  get transcript(): string {
    return this.#texts.join('\n\n');
  }
}

/** The lines of the disk as `du` and others print them, in bytes. */
function linesOf(text: string): Record<string, number> {
  const lines = [...text.matchAll(/^ {2}(\w[\w ]*?) +[\d.]+ \w+ +(-?\d+)$/gm)];
  return Object.fromEntries(lines.map(([, name, bytes]) => [name!, Number(bytes)]));
}

/** Every line about the disk against the file system. */
function compareWithDisk(root: string, text: string): Record<string, number> {
  const { total, ...lines } = linesOf(text);
  assert.equal(total, duOf(root));
  assert.equal(sum(Object.values(lines)), total);
  const content = paths.content(root);
  const objects = [
    join(content, 'blobs', 'sha256'),
    join(content, 'ingest'),
    join(paths.snapshotter(root, 'overlayfs'), 'snapshots'),
  ];
  const { kept = 0, garbage = 0, orphans = 0, unfinished = 0 } = lines;
  assert.equal(kept + garbage + orphans + unfinished, sum(objects.flatMap(entriesOf).map(duOf)));
  const { blocks, bfree, bavail, bsize } = statfsSync(root);
  const mebibytes = (n: number): string => `${((n * bsize) / 2 ** 20).toFixed(1)} MiB`;
  const system = `file system     ${mebibytes(blocks)}, ${mebibytes(blocks - bfree)} used, ${mebibytes(bavail)} free`;
  assert.ok(text.includes(system), `${system}\n${text}`);
  return { total, ...lines } as Record<string, number>;
}

/** The row of a table that begins with these words: its sizes as they are printed. */
function sizesOf(text: string, row: RegExp): string[] {
  const line = text.split('\n').find((one) => row.test(one));
  assert.ok(line, `${row} in\n${text}`);
  return [...line.matchAll(/[\d.]+ (?:[KM]i)?B\b/g)].map(([size]) => size);
}
const printed = (n: number): string =>
  n >= 2 ** 20 ? `${(n / 2 ** 20).toFixed(1)} MiB` : n >= 1024 ? `${(n / 1024).toFixed(1)} KiB` : `${n} B`;

/** A disk of which 95 of a hundred bytes are used when it is filled. */
async function fullDisk(t: TestContext): Promise<{ root: string; fill: () => void }> {
  const disk = await tempDir(t);
  execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=256m', 'tmpfs', disk]);
  t.after(() => execFileSync('umount', [disk]));
  const root = join(disk, 'ebbtide');
  mkdirSync(root);
  const fill = (): void => {
    const { blocks, bfree, bsize } = statfsSync(disk);
    // df rounds up.
    const size = Math.round((((blocks - bfree) * bsize) / 1024) * (100 / (USED_PERCENT - 0.5)));
    execFileSync('mount', ['-o', `remount,size=${size}k`, disk]);
  };
  return { root, fill };
}

test('given a disk that is nearly full, when the operator asks, then every number is the file system’s, and the page shows it so', async (t) => {
  const { ok, reason } = await canMount();
  if (!ok) return t.skip(`cannot mount: ${reason}`);
  if (noTerminal !== undefined) return t.skip(noTerminal);
  const { root, fill } = await fullDisk(t);
  const dir = await tempDir(t);
  const filled = await fillOperatorStore(root, dir);
  fill();
  const story = new Story(root, dir);
  const df = `df -h --output=size,used,avail,pcent ${root}`;
  assert.match(story.shell(df), new RegExp(` ${USED_PERCENT}%`));

  // What keeps it.
  const held = story.ebbtide(['du', '-A']);
  const before = compareWithDisk(root, held);
  const blobs = join(paths.content(root), 'blobs', 'sha256');
  assert.equal(before.orphans, duOf(join(blobs, 'e'.repeat(64))));
  assert.deepEqual(sizesOf(held, new RegExp(`^lease +${filled.interruptedImport} `)).slice(0, 1), [
    printed(before.unfinished!),
  ]);
  story.ebbtide(['leases', 'ls']);
  assert.match(story.ebbtide(['why', filled.cached.slice(7, 19)]), /lease nightly-cache {2}a root/);

  // What can go.
  const dry = story.ebbtide(['gc', '--dry-run', '--full']);
  assert.deepEqual(compareWithDisk(root, dry), before);
  for (const [, digest, size] of dry.matchAll(/^content .*sha256:([0-9a-f]{12})\S* +([\d.]+ \w+)$/gm)) {
    const file = entriesOf(blobs).find((path) => path.includes(`/${digest}`))!;
    assert.equal(size, printed(statSync(file).size), digest);
  }
  assert.ok(dry.includes(`reclaimable     ${printed(before.garbage! + before.orphans!)}:`));

  // What would that free.
  const leases = ['nightly-cache', filled.interruptedUnpack, filled.interruptedImport];
  const without = story.ebbtide(['du', '-A', '--by', 'lease', '--without', ...leases]);
  const promised = /^without .*: ([\d.]+ MiB) freed of the/m.exec(without)![1];

  // Do it, safely.
  story.ebbtide(['leases', 'rm', ...leases.slice(0, 2)]);
  story.ebbtide(['-n', 'ci', 'leases', 'rm', filled.interruptedImport]);
  const planned = compareWithDisk(root, story.ebbtide(['gc', '--full', '--plan', 'plan.json']));
  assert.equal(promised, printed(planned.garbage! - before.garbage!));
  const applied = story.ebbtide(['gc', '--apply', 'plan.json']);

  // Prove it.
  const after = compareWithDisk(root, story.ebbtide(['du', '-A', '--by', 'none']));
  assert.equal(after.kept, planned.kept);
  assert.deepEqual([after.garbage, after.orphans, after.unfinished], [0, 0, 0]);
  const gone = planned.garbage! + planned.orphans!;
  assert.equal(/^freed +(.*)$/m.exec(applied)![1], printed(gone));
  const damage = story.ebbtide(['check'], 5);
  assert.match(damage, new RegExp(`^damage {2}blob-size {2}default {2}${filled.damaged}`, 'm'));
  story.ebbtide(['import', 'web-2']);
  assert.match(story.ebbtide(['check', '--hash']), /^sound$/m);
  assert.equal(story.shell(`du -s -B1 ${root}`).split('\t')[0], `${duOf(root)}`);
  story.shell(df);

  const page = readFileSync(PAGE, 'utf8');
  const [, head, transcript, tail] = /^([\s\S]*?```console\n)([\s\S]*?)(\n```\n[\s\S]*)$/.exec(page)!;
  if (process.env.EBBTIDE_WRITE_DOCS) writeFileSync(PAGE, `${head}${story.transcript}${tail}`);
  else
    assert.equal(
      shapeOf(transcript!),
      shapeOf(story.transcript),
      'EBBTIDE_WRITE_DOCS=1 node test/run.mjs cli/operator writes the page',
    );
});

/** Without what differs from run to run: sizes, times, ids, and the widths of columns. */
const shapeOf = (text: string): string =>
  text
    .replace(/(?<![\w:])\d+-[\w-]{4}(?=[ ,:]|$)/gm, 'ID')
    .replace(/extract-\d+-[\w-]{4}/g, 'extract-ID')
    .replace(/\d{4}-\d\d-\d\dT[\d:]+Z/g, 'TIME')
    .replace(/(?<=^| )-?[\d.]+(?: ?(?:[KMG]i?B?|B|%))?(?=[\s,:;)]|$)/gm, 'N')
    .replace(/ +/g, ' ');
