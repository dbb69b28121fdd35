/** Small files are made many at a time, beside the reading: nothing of that is to be seen in the outcome. */
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import { lstat } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { applyLayer } from '../../src/backends/archive/apply.js';
import { canMount, withMounts } from '../../src/backends/mounts.js';
import { sys } from '../../src/backends/sys.js';
import { isKind } from '../../src/errors.js';
import { bind, fenced, type Item, run, streamOf, tarOf, tempDir, treeOf } from './support.js';

const isRoot = process.getuid?.() === 0;
const dir = (name: string): Item => ({ name, type: 'directory' });
const many = (count: number, prefix = 'd/f'): Item[] =>
  Array.from({ length: count }, (_, i) => ({ name: `${prefix}${i}`, text: `${i}`.repeat(i % 97) }));

describe('many small files', () => {
  test('given names that come again, as files, links, directories and deletions, then the last word counts', async (t) => {
    const items: Item[] = [
      dir('d'),
      ...many(700),
      { name: 'd/f1', text: 'again' },
      { name: 'd/f2', type: 'symlink', linkname: 'f3' },
      { name: 'd/f2/x', text: 'parent is a file' },
      { name: 'd/f4', type: 'directory' },
      { name: 'd/f4/in', text: 'in' },
      { name: 'hard', type: 'link', linkname: 'd/f5' },
      { name: 'd/f5', text: 'no longer the linked one' },
      { name: 'd/f6', text: '' },
      { name: 'd/new', text: 'once' },
      { name: 'd/new', text: 'twice' },
      { name: 'd/linked', text: 'once' },
      { name: 'd/other', type: 'link', linkname: 'd/linked' },
      { name: 'd/linked', text: 'twice' },
      { name: 'd/short', text: 'x' },
      { name: 'd/short', type: 'directory' },
      { name: 'd/short/in', text: 'x' },
      dir('gone'),
      ...many(50, 'gone/f'),
      { name: 'gone', text: 'now a file' },
      dir('e'),
      ...many(300, 'e/f'),
    ];
    const wrong = items.findIndex(({ name }) => name === 'd/f2/x');
    const { root, mounts } = await fenced(t);
    await assert.rejects(applyLayer(mounts, streamOf(await tarOf(items))), /"d\/f2\/x" has a parent/);
    items.splice(wrong, 1);
    const archive = await tarOf(items);
    const { root: second, mounts: fresh } = await fenced(t);
    await applyLayer(fresh, streamOf(archive));
    const meant = await tempDir(t);
    run('tar', ['-C', meant, '--recursive-unlink', '-xf', '-'], archive);
    assert.deepEqual(await treeOf(second), await treeOf(meant));
    // And: over what an earlier layer left.
    await applyLayer(mounts, streamOf(archive));
    assert.deepEqual(await treeOf(root), await treeOf(meant));
  });

  test('given owner, mode, times and attributes, then each file has its own', async (t) => {
    const { root, mounts } = await fenced(t);
    const items = Array.from({ length: 300 }, (_, i): Item => {
      const xattrs = new Map([
        ['user.number', Buffer.from([i & 255, 0, 1])],
        ['trusted.overlay.opaque', Buffer.from('y')],
      ]);
      const times = { mtime: 1_000_000_000_123_456_789n + BigInt(i) };
      return {
        name: `d${i % 7}/f${i}`,
        text: 'x',
        mode: i % 2 ? 0o4751 : 0o600,
        uid: i,
        gid: 2 * i,
        xattrs,
        ...times,
      };
    });
    const { skipped } = await applyLayer(mounts, streamOf(await tarOf(items)));
    for (const { name, mode, uid, gid, mtime } of items) {
      const stats = await lstat(join(root, name), { bigint: true });
      const owner = isRoot ? [uid, gid] : [process.getuid!(), process.getgid!()];
      assert.deepEqual(
        [stats.mode & 0o7777n, stats.mtimeNs, Number(stats.uid), Number(stats.gid)],
        [BigInt(mode!), mtime, ...owner],
        name,
      );
      if (sys.xattrSupported) assert.deepEqual(sys.llistxattr(join(root, name)), ['user.number']);
    }
    assert.equal(skipped.xattrs, 300);
  });

  test('given one that cannot be made, then the error names it and not the entry that was read meanwhile', async (t) => {
    const { mounts } = await fenced(t);
    const items = [...many(10), { name: `d/${'n'.repeat(300)}`, text: 'x' }, ...many(2000, 'after/f')];
    await assert.rejects(applyLayer(mounts, streamOf(await tarOf(items))), (error: unknown) => {
      assert.ok(isKind(error, 'InvalidArgument'));
      assert.match(String(error), /"d\/n{300}" has a name that is too long/);
      return true;
    });
  });

  test('given a disk that fills up, then that is Unavailable and names an entry', async (t) => {
    const { ok, reason } = await canMount();
    if (!ok) return t.skip(`cannot mount a small file system: ${reason}`);
    const layer = await tarOf([
      dir('d'),
      ...Array.from({ length: 400 }, (_, i) => ({ name: `d/${i}`, text: Buffer.alloc(8000) })),
    ]);
    await withMounts([{ type: 'tmpfs', source: 'tmpfs', options: ['size=1m'] }], async (root) => {
      await assert.rejects(applyLayer([bind(root)], streamOf(layer)), (error: unknown) => {
        assert.ok(isKind(error, 'Unavailable'), String(error));
        assert.match(String(error), /cannot write the archive entry d\/\d+: ENOSPC/);
        return true;
      });
    });
  });

  test('given a call that is ended, then nothing is under way and no descriptor is left', async (t) => {
    const { mounts } = await fenced(t);
    const layer = await tarOf(many(3000));
    const descriptors = (): number => readdirSync('/proc/self/fd').length;
    const before = descriptors();
    for (let i = 0; i < 5; i++) {
      const end = new AbortController();
      const source = async function* () {
        for await (const chunk of streamOf(layer, 100_000)) {
          yield chunk;
          if (i > 0) end.abort();
        }
      };
      const applied = applyLayer(mounts, source(), { signal: end.signal });
      if (i > 0) await assert.rejects(applied, (error) => isKind(error, 'Canceled'));
      else await applied;
    }
    assert.equal(descriptors(), before);
  });
});
