/** Policies as people write their files, and as a daemon waits by them. */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { isKind } from '../../src/errors.js';
import { openDB } from '../../src/open.js';
import { readPolicy } from '../../src/policy/file.js';
import { parsePolicy } from '../../src/policy/policy.js';
import { limitsOf } from '../../src/server/limits.js';
import { Policies } from '../../src/server/policies.js';
import { tempDir } from '../support/db.js';

const rules = [{ keepLast: 2, maxUsedSpace: '10G' }];

async function fileOf(t: TestContext, text: string | Buffer): Promise<string> {
  const file = join(await tempDir(t), 'policy.json');
  await writeFile(file, text);
  return file;
}

test('given a file with a byte order mark and CRLF, when it is read, then it is the same policy', async (t) => {
  const text = `\ufeff${JSON.stringify({ rules }, undefined, 2)}\n`.replaceAll('\n', '\r\n');
  assert.deepEqual(await readPolicy(await fileOf(t, text)), { rules });
});

test('given a file that is none, when it is read, then it is named, and nothing of it reaches a terminal as it is', async (t) => {
  const cases: readonly [string | Buffer, RegExp][] = [
    ['', /policy\.json is not JSON: it is empty$/],
    [' \r\n', /it is empty$/],
    ['[[rules]]\nkeepLast = 2\n', /is not JSON: [^\n]*\\x0a/],
    ['\u001b[2J', /is not JSON: [^\u001b]*\\x1b/],
    [Buffer.from(JSON.stringify({ rules }), 'utf16le'), /is not JSON/],
    ['['.repeat(100_000), /is not JSON/],
    [JSON.stringify({ rules: [{ keepLast: 1, keeplast: 1 }] }), /unknown field "keeplast"/],
    ['{"rules":[{"maxUsedSpace":1e400}]}', /maxUsedSpace must be bytes/],
    [
      '{"rules":[{"keepLast":9,"filters":["a==\\"{"],"keep\\u004cast":1}]}',
      /has the field "keepLast" twice in one object/,
    ],
    ['{"rules":[{}],"rules" : []}', /has the field "rules" twice/],
    ['{"__proto__":{"rules":[]},"rules":[{}]}', /unknown field "__proto__"/],
  ];
  for (const [text, expected] of cases) {
    const file = await fileOf(t, text);
    await assert.rejects(
      readPolicy(file),
      (error: Error) => isKind(error, 'InvalidArgument') && expected.test(error.message),
      String(text).slice(0, 40),
    );
  }
});

/** Longer than a timer of Node can wait: it would end at once. */
test('given a policy of every 30 days, when a daemon has it, then it waits', async (t) => {
  const root = await tempDir(t);
  await using db = await openDB({ root, snapshotters: ['native'], log: () => undefined });
  const warned: string[] = [];
  const warn = (warning: Error): void => void warned.push(warning.name);
  process.on('warning', warn);
  const hooks = { log: { info: () => undefined, warn: () => undefined }, onRun: () => undefined };
  await using policies = new Policies(db, root, { every: '720h', rules }, hooks);
  await new Promise((resolve) => setTimeout(resolve, 200));
  process.off('warning', warn);
  assert.deepEqual([policies.state.last, warned], [undefined, []]);
  const days = (Date.parse(policies.state.next ?? '') - Date.now()) / 86_400_000;
  assert.ok(days > 29.9 && days < 30.1, `${days}`);
  // Neither is a part of a millisecond.
  policies.replace({ every: '1500.5ms', rules });
  assert.equal(parsePolicy({ every: '1500.5ms', rules }).everyMs, 1500);
});

test('given a limit longer than a timer can wait, when a daemon is given it, then it is refused', () => {
  assert.throws(
    () => limitsOf({ helloMs: 2 ** 31 }),
    (error: Error) => isKind(error, 'InvalidArgument') && /helloMs/.test(error.message),
  );
  assert.equal(limitsOf({ helloMs: 2 ** 31 - 1 }).helloMs, 2 ** 31 - 1);
});
