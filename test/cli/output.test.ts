import assert from 'node:assert/strict';
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { type Column, Output, type OutputOptions } from '../../src/cli/output/output.js';
import { progressLine } from '../../src/cli/output/progress-line.js';
import { EbbtideError } from '../../src/errors.js';
import { openDB } from '../../src/open.js';
import { writeBlob } from '../../src/stores/content/content-helpers.js';
import { cli, layout, MAIN } from './support.js';

const ONE = 'example.com/one:1';
const WIDTHS = [60, 80, 120];
const sha = (text: string | Buffer): string => `sha256:${createHash('sha256').update(text).digest('hex')}`;

interface Row {
  name: string;
  digest: string;
  size: number;
  labels: Record<string, string>;
}
const rows: Row[] = [
  'docker.io/library/debian:12',
  'registry.example.com/team/a-rather-long-name:2026.11',
].map((name) => ({
  name,
  digest: sha(name),
  size: 12345,
  labels: { 'a.b/c': 'x', colour: 'blue', 'containerd.io/gc.ref.content.0': sha('layer') },
}));
const columns: Column<Row>[] = [
  { title: 'NAME', value: (r) => r.name },
  { title: 'DIGEST', value: (r) => r.digest },
  { title: 'SIZE', value: (r) => r.size, right: true },
  { title: 'LABELS', value: (r) => JSON.stringify(r.labels), minor: true },
];

function printed(options: OutputOptions, width?: number, list: Row[] = rows): string[] {
  const lines: string[] = [];
  new Output(options, { columns: width, write: (text) => void lines.push(text.slice(0, -1)) }).rows(
    list,
    columns,
  );
  return lines;
}

describe('what a list prints', () => {
  test('given a width, when a table is printed, then it fits, and digests keep what distinguishes them', () => {
    for (const width of WIDTHS) {
      const lines = printed({}, width);
      assert.deepEqual(
        lines.filter((line) => line.length > width),
        [],
        `${width}`,
      );
      assert.match(lines[1]!, / 12345( {2}|$)/);
    }
    const [, first] = printed({}, 120);
    assert.match(first!, new RegExp(`^docker.io/library/debian:12 .* ${rows[0]!.digest.slice(0, 19)} `));
    const whole = printed({});
    assert.deepEqual(printed({}, whole[2]!.length), whole);
    assert.ok(whole[1]!.includes(rows[0]!.digest) && whole[1]!.includes(sha('layer')));
  });

  test('given a format, when a list is printed, then each row is a line of the fields of its JSON', () => {
    assert.deepEqual(
      printed({ quiet: true }, 20),
      rows.map(({ name }) => name),
    );
    assert.equal(
      printed({ format: '{name}\\t{labels.a.b/c} {{{size}}}' })[0],
      'docker.io/library/debian:12\tx {12345}',
    );
    assert.deepEqual(JSON.parse(printed({ format: 'json' }).join('\n')), rows);
    assert.deepEqual(printed({ format: 'table' }), printed({}));
    assert.deepEqual(printed({ format: '{nothing}' }, undefined, []), []);
    const hostile = [{ ...rows[0]!, name: 'a\nb\u001b[31m\u202ec' }];
    assert.deepEqual(printed({ format: '{name}' }, undefined, hostile), ['a\\x0ab\\x1b[31m\\u202ec']);
    for (const options of [{ format: '{name' }, { format: '{nothing}' }, { json: true, quiet: true }])
      assert.throws(
        () => printed(options),
        (error) => error instanceof EbbtideError && error.kind === 'InvalidArgument',
      );
  });

  test('given any width, when progress is shown, then the line fits and begins with the amount', () => {
    const view = {
      what: `import ${sha('layer')}`,
      done: 12_900_000,
      total: 171_600_000,
      unit: 'bytes',
      rate: 4_300_000,
      item: 3,
      items: 12,
    } as const;
    for (const width of [...WIDTHS, 1, 10, 20, 30, 40]) {
      const line = progressLine(view, width);
      assert.ok(line.length < width, `${width}: ${line}`);
      assert.ok('12.3 MiB of 163.7 MiB'.startsWith(line.slice(0, 9)) || width <= 10, line);
    }
    assert.match(
      progressLine(view, 60),
      /^12\.3 MiB of 163\.7 MiB {2}\[#*-*\] +7 % {2}4\.1 MiB\/s {2}3 of 12$/,
    );
    for (const width of [80, 120]) assert.match(progressLine(view, width), / 3 of 12 {2}import sha/);
    assert.equal(
      progressLine({ what: 'collecting', done: 3, total: 0, unit: 'seconds' }, 80),
      '3 s  collecting',
    );
  });
});

describe('the command with standard output', () => {
  test('given an image, when names, fields or the archive are wanted, then pipes get just that', async (t) => {
    const run = await cli(t);
    const { path, manifest } = await layout(t);
    assert.equal(await run.ok('import', path, '-q'), `${ONE}\nexample.com/two:1\n`);
    assert.equal(await run.ok('images', 'ls', '-q', `name==${ONE}`), `${ONE}\n`);
    const [line] = (await run.ok('images', 'ls', '--format', '{name} {target.digest} {size}')).split('\n');
    assert.match(line!, new RegExp(`^${ONE} ${manifest} [1-9]\\d+$`));
    assert.match(await run.ok('du', '-q'), /^example.com\/one:1$/m);
    await run.fails(2, /has an unmatched brace/, 'images', 'ls', '--format', '{name');
    const file = join(run.root, '..', 'one.tar');
    await run.ok('export', ONE, '-o', file);
    const piped = spawnSync(process.execPath, [MAIN, '--root', run.root, '-n', 'test', 'export', ONE, '-']);
    assert.equal(piped.status, 0, String(piped.stderr));
    assert.ok(piped.stdout.equals(await readFile(file)));
    await run.fails(2, /cannot both go to standard output/, 'export', ONE, '-o', '-', '--json');
    await run.fails(2, /needs a destination/, 'export', '-');
  });

  test('given beginnings of digests, when they name one blob, then verbs take them, and else name the candidates', async (t) => {
    const run = await cli(t);
    const [a, b] = twins();
    {
      await using db = await openDB({ root: run.root });
      const lease = { namespace: 'test' };
      for (const text of [a, b])
        await writeBlob(db.content, lease, text, Buffer.from(text), { digest: sha(text) });
    }
    const short = sha(a).slice(7, 23);
    assert.equal(await run.ok('content', 'cat', short), a);
    assert.match(await run.ok('content', 'info', sha(a).slice(0, 23)), new RegExp(`^digest +${sha(a)}\n`));
    await run.ok('leases', 'create', 'keep');
    assert.equal(await run.ok('leases', 'add', 'keep', 'content', short), `keep content ${sha(a)}\n`);
    const common = sha(a).slice(7, 11);
    for (const args of [
      ['cat', common],
      ['rm', short, common],
    ]) {
      const { code, stderr } = await run.run('content', ...args);
      assert.equal(code, 2);
      assert.ok(stderr.includes(sha(a)) && stderr.includes(sha(b)), stderr);
    }
    // Nothing goes unless all are known.
    assert.equal(await run.ok('content', 'rm', short, sha(b)), `${sha(a)}\n${sha(b)}\n`);
    await run.fails(3, /no content "abcdef"/, 'content', 'info', 'abcdef');
    await run.ok('snapshots', 'prepare', 'work');
    const chain = sha('chain');
    await run.ok('snapshots', 'commit', chain, 'work');
    assert.match(await run.ok('snapshots', 'info', chain.slice(7, 19)), new RegExp(`^key +${chain}\n`));
    assert.equal(await run.ok('snapshots', 'rm', chain.slice(0, 19)), `${chain}\n`);
  });

  test('given --json, when a verb fails or cannot be parsed, then the error is a line of JSON, whatever the exit code', async (t) => {
    const run = await cli(t);
    const failed = async (...args: string[]) => {
      const { code, stdout, stderr } = await run.run(...args, '--json');
      assert.equal(stdout, '');
      assert.equal(stderr.split('\n').length, 2, stderr);
      return [code, (JSON.parse(stderr) as { error: object }).error];
    };
    assert.deepEqual(await failed('images', 'show', 'nope'), [
      3,
      {
        kind: 'NotFound',
        message: 'image "nope" not found',
        object: 'nope',
        remedy: 'ebbtide images ls lists the existing ones',
      },
    ]);
    const remedy = 'ebbtide --help shows the verbs';
    const parsed = (message: string) => [2, { kind: 'InvalidArgument', message, remedy }];
    assert.deepEqual(await failed('images', 'rm'), parsed("missing required argument 'name'"));
    assert.deepEqual(await failed('du', '--bi'), parsed("unknown option '--bi'\n(Did you mean --by?)"));
    assert.deepEqual(await failed(), parsed('missing verb'));
  });

  test('given a terminal, when a table is printed, then it fits, and an archive is refused', async (t) => {
    if (spawnSync('script', ['--version']).error !== undefined) return t.skip('script is not installed');
    const run = await cli(t);
    const { path } = await layout(t);
    await run.ok('import', path);
    const command = `"${process.execPath}" "${MAIN}" --root "${run.root}" -n test`;
    const env = { ...process.env, COLUMNS: '' };
    const onTerminal = (line: string) =>
      spawnSync('script', ['-qec', `stty cols 60; ${line}`, '/dev/null'], { env, encoding: 'utf8' });
    const lines = onTerminal(`${command} images ls`).stdout.trimEnd().split(/\r?\n/);
    assert.equal(lines.length, 3);
    assert.deepEqual(
      lines.filter((line) => line.length > 60),
      [],
    );
    const { status, stdout } = onTerminal(`${command} export ${ONE} -`);
    assert.match(stdout, /^ebbtide: the archive would go to the terminal/);
    assert.equal(status, 2);
  });

  test('given a full device, when anything is printed, then that is one line and exit code 6', async (t) => {
    if (!existsSync('/dev/full')) return t.skip('this system has no /dev/full');
    const run = await cli(t);
    const { path, base } = await layout(t);
    await run.ok('import', path);
    const full = openSync('/dev/full', 'w');
    const verbs = [
      ['images', 'ls'],
      ['content', 'cat', base],
      ['export', ONE, '-'],
      ['du', '--json'],
      ['gc', '--help'],
    ];
    for (const args of verbs) {
      const { status, stderr } = spawnSync(
        process.execPath,
        [MAIN, '--root', run.root, '-n', 'test', ...args],
        {
          stdio: ['ignore', full, 'pipe'],
        },
      );
      assert.match(
        String(stderr),
        /^(ebbtide: |\{"error":.*)cannot write to standard output: ENOSPC[^\n]*\n$/,
        args.join(' '),
      );
      assert.equal(status, 6, args.join(' '));
    }
    await run.fails(6, /cannot write \/dev\/full: ENOSPC/, 'gc', '--plan', '/dev/full');
    await run.fails(6, /cannot export to \/dev\/full: ENOSPC/, 'export', ONE, '-o', '/dev/full');
    // A reader that has gone is none of these.
    for (const args of [`export ${ONE} -`, 'images ls', `content cat ${base}`]) {
      const line = `"${process.execPath}" "${MAIN}" --root "${run.root}" -n test ${args} | true; exit \${PIPESTATUS[0]}`;
      const { status, stderr } = spawnSync('bash', ['-c', line]);
      assert.deepEqual([status, String(stderr)], [0, ''], args);
    }
  });
});

test('given a pipe as the output of an export, then it takes the tar, and stays; given a file, then that is not taken for a directory', async (t) => {
  const run = await cli(t);
  await run.ok('import', (await layout(t)).path, '-q');
  const [pipe, file] = ['pipe.tar', 'file'].map((name) => join(run.root, '..', name)) as [string, string];
  execFileSync('mkfifo', [pipe]);
  const reader = spawn('sha256sum', [pipe]);
  const read = reader.stdout.setEncoding('utf8').toArray();
  assert.match(await run.ok('export', ONE, '-o', pipe), /pipe.tar: \d+ blobs/);
  assert.ok(statSync(pipe).isFIFO());
  await run.ok('export', ONE, '-o', `${file}.tar`);
  assert.equal((await read).join('').slice(0, 64), sha(readFileSync(`${file}.tar`)).slice(7));
  writeFileSync(file, '');
  await run.fails(
    4,
    /file is a file \(AlreadyExists\)\n {2}name a new or an empty directory/,
    'export',
    ONE,
    '-o',
    file,
  );
});

/** Two texts whose digests begin with the same four digits. */
function twins(): [string, string] {
  const seen = new Map<string, string>();
  for (let n = 0; ; n++) {
    const text = `text ${n}`;
    const begin = sha(text).slice(7, 11);
    const other = seen.get(begin);
    if (other !== undefined) return [other, text];
    seen.set(begin, text);
  }
}
