/** `ebbtide check`, and what the other verbs do with damaged blobs, on the store itself and through a daemon. */
import assert from 'node:assert/strict';
import { readFile, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import type { CheckReport } from '../../src/check/findings.js';
import { layout as paths } from '../../src/open.js';
import { damages, rot } from '../stores/damage.js';
import { type Cli, cli, layout, serve } from './support.js';

const fileOf = (run: Cli, digest: string): string =>
  join(paths.content(run.root), 'blobs', 'sha256', digest.slice(7));

/** The report of a check that finds damage. */
async function damaged(run: Cli, ...args: string[]): Promise<CheckReport> {
  const { code, stdout, stderr } = await run.run('check', '--json', ...args);
  assert.deepEqual({ code, stderr }, { code: 5, stderr: '' });
  return JSON.parse(stdout) as CheckReport;
}

for (const where of ['the store itself', 'a daemon']) {
  describe(`check through ${where}`, () => {
    const start = async (t: TestContext): Promise<Cli> => {
      const run = await cli(t);
      if (where === 'a daemon') await serve(t, run);
      return run;
    };

    test('given a blob whose file is damaged, then reads fail, and an import writes it again', async (t) => {
      const run = await start(t);
      const { path, base } = await layout(t);
      await run.ok('import', path);
      assert.match(await run.ok('check', '--hash'), /\nsound\n$/);
      const whole = await readFile(fileOf(run, base));
      for (const what of ['missing', 'truncated', 'a pipe']) {
        await damages[what]!(fileOf(run, base));
        const code = what === 'missing' ? 3 : 5;
        await run.fails(code, new RegExp(base), 'content', 'cat', base);
        const { findings } = await damaged(run);
        assert.deepEqual(
          findings.map(({ object, namespace, severity }) => [object, namespace, severity]),
          [[base, 'test', 'damage']],
        );
        // The replacement of a damaged file is logged.
        assert.equal((await run.run('import', path)).code, 0);
        assert.deepEqual(await readFile(fileOf(run, base)), whole);
        assert.equal((await run.json<CheckReport>('check')).sound, true);
      }
      await truncate(fileOf(run, base), 10);
      assert.equal((await run.run('import', path, '--unpack', 'native')).code, 0);
      assert.equal((await run.json<CheckReport>('check', '--hash')).sound, true);
    });

    test('given a bit that has changed, then --hash finds it, --repair moves it away, and an import writes it again', async (t) => {
      const run = await start(t);
      const { path, base } = await layout(t);
      await run.ok('import', path);
      await rot(fileOf(run, base));
      assert.equal((await run.json<CheckReport>('check')).sound, true);
      const text = await run.run('check', '--hash');
      assert.equal(text.code, 5);
      assert.match(text.stdout, new RegExp(`^damage {2}blob-digest {2}${base}\n {2}path .*\n`));
      const { findings, repaired } = await damaged(run, '--hash', '--repair');
      assert.equal(repaired, 1);
      assert.match(findings[0]?.repaired ?? '', /^moved to /);
      await run.ok('import', path);
      assert.equal((await run.json<CheckReport>('check', '--hash')).sound, true);
    });

    test('given damage, then doctor --check reports it, by its exit code too', async (t) => {
      const run = await start(t);
      const { path, base } = await layout(t);
      await run.ok('import', path);
      assert.match(await run.ok('doctor', '--check'), /state +sound/);
      await rm(fileOf(run, base));
      const { code, stdout } = await run.run('doctor', '--check');
      assert.equal(code, 5);
      assert.match(stdout, /state +damaged: 1 findings/);
      assert.match(stdout, new RegExp(`damage +blob-missing ${base}`));
    });
  });
}
