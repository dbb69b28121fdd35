/**
 * Upper directories that were mounted with other options: a layer made of them must have what the mount showed,
 * or be refused. The kernel judges: what it shows while it is mounted is what the applied layer must give.
 */
import assert from 'node:assert/strict';
import { appendFile, chmod, lstat, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { applyLayer } from '../../src/backends/archive/apply.js';
import { diffLayer } from '../../src/backends/archive/diff.js';
import type { Mount } from '../../src/backends/contract.js';
import { canMount, withMounts } from '../../src/backends/mounts.js';
import { openOverlayfs } from '../../src/backends/snapshotters/overlayfs.js';
import { sys } from '../../src/backends/sys.js';
import { isKind } from '../../src/errors.js';
import { bind, run, streamOf, tempDir, treeOf } from './support.js';

const mountable = await canMount();
const reason = !sys.xattrSupported
  ? 'the native helper for extended attributes is not built'
  : mountable.ok
    ? false
    : `mounts are not permitted: ${mountable.reason}`;
if (reason) console.log(`marks of overlays are not tested: ${reason}`);

/** Layers one over another, each written through a mount with the options. */
class Layers {
  readonly #dir: string;
  readonly #options: string[];
  #count = 0;

  constructor(dir: string, ...options: string[]) {
    this.#dir = dir;
    this.#options = options;
  }

  static async on(t: TestContext, options: string[], fill: (base: string) => Promise<void>): Promise<Layers> {
    const layers = new Layers(await tempDir(t), ...options);
    await layers.add();
    await fill(layers.path(1, 'fs'));
    return layers;
  }

  path(layer: number, name: string): string {
    return join(this.#dir, String(layer), name);
  }

  async add(): Promise<void> {
    this.#count++;
    for (const name of ['fs', 'work']) await mkdir(this.path(this.#count, name), { recursive: true });
  }

  /** The mount of the layers up to this one; `options` beside those of every mount. */
  mount(top = this.#count, options = this.#options): Mount[] {
    const below = Array.from({ length: top - 1 }, (_, i) => this.path(i + 1, 'fs')).reverse();
    if (below.length === 0) return [{ type: 'bind', source: this.path(1, 'fs'), options: ['rbind', 'ro'] }];
    const own = [`workdir=${this.path(top, 'work')}`, `upperdir=${this.path(top, 'fs')}`];
    return [
      { type: 'overlay', source: 'overlay', options: [...own, `lowerdir=${below.join(':')}`, ...options] },
    ];
  }

  /** One more layer; returns what its mount showed in the end. */
  async change(work: (mounted: string) => Promise<void>): Promise<Record<string, string>> {
    await this.add();
    return withMounts(this.mount(), async (mounted) => {
      await work(mounted);
      return shown(mounted);
    });
  }

  /** What the layers' difference gives when it is applied to what was below: layer by layer, as images have them. */
  async applied(t: TestContext): Promise<Record<string, string>> {
    const plain = await tempDir(t);
    for (let top = 1; top <= this.#count; top++) {
      const parts: Uint8Array[] = [];
      const lower = top === 1 ? [] : this.mount(top - 1);
      await diffLayer(lower, this.mount(top), async (bytes) => void parts.push(bytes));
      await applyLayer([bind(plain)], streamOf(Buffer.concat(parts)));
    }
    return shown(plain);
  }
}

/** Contents and modes. */
async function shown(root: string): Promise<Record<string, string>> {
  const tree = await treeOf(root);
  for (const path of Object.keys(tree)) {
    const { mode } = await lstat(join(root, path));
    tree[path] = `${(mode & 0o7777).toString(8)} ${tree[path]}`;
  }
  return tree;
}

async function base(dir: string): Promise<void> {
  await mkdir(join(dir, 'a/sub/deep'), { recursive: true });
  for (const name of ['a/f', 'a/sub/g', 'a/sub/deep/h', 'big'])
    await writeFile(join(dir, name), `${name} `.repeat(999));
}

const kept = ['redirect_dir=on', 'metacopy=on'];
type Step = (mounted: string) => Promise<void>;
const cases: [string, Step[]][] = [
  ['a renamed directory', [async (m) => rename(join(m, 'a'), join(m, 'a2'))]],
  ['a file whose mode changed', [async (m) => chmod(join(m, 'big'), 0o600)]],
  [
    'a directory and a file moved into a new directory',
    [
      async (m) => {
        await mkdir(join(m, 'new'));
        await rename(join(m, 'a/sub'), join(m, 'new/sub2'));
        await chmod(join(m, 'big'), 0o600);
        await rename(join(m, 'big'), join(m, 'new/big2'));
      },
    ],
  ],
  [
    'a renamed directory, and another one under its old name',
    [
      async (m) => {
        await rename(join(m, 'a'), join(m, 'b'));
        await mkdir(join(m, 'a'));
        await writeFile(join(m, 'a/f'), 'other');
        await rm(join(m, 'b/sub/g'));
      },
    ],
  ],
  [
    'directories moved again in the next layer, and content written at last',
    [
      async (m) => {
        await mkdir(join(m, 'x'));
        await rename(join(m, 'a/sub'), join(m, 'x/s'));
        await chmod(join(m, 'x/s/g'), 0o640);
      },
      async (m) => {
        await rename(join(m, 'x'), join(m, 'y'));
        await rename(join(m, 'y/s/deep'), join(m, 'deep2'));
        await chmod(join(m, 'y/s/g'), 0o604);
      },
      async (m) => {
        await appendFile(join(m, 'y/s/g'), 'more');
        await chmod(join(m, 'deep2/h'), 0o600);
        await rename(join(m, 'deep2'), join(m, 'y/d'));
      },
    ],
  ],
];

describe('layers of overlays that others mounted', { skip: reason }, () => {
  for (const [name, steps] of cases) {
    test(`given ${name}, the layer has what the mount showed`, async (t) => {
      const layers = await Layers.on(t, kept, base);
      let seen: Record<string, string> = {};
      for (const step of steps) seen = await layers.change(step);
      assert.deepEqual(await layers.applied(t), seen);
    });
  }

  test('given random changes under redirects and metacopy, layer by layer, the layers have what was shown', async (t) => {
    const names = ['a', 'b', 'c'];
    const path = fc.constantFrom(
      ...names,
      ...names.flatMap((n) => names.map((m) => `${n}/${m}`)),
      'a/b/c',
      'b/c/a',
    );
    const change = fc.oneof(
      { weight: 4, arbitrary: fc.tuple(path, path).map(([x, y]) => ['mv', '-T', x, y]) },
      { weight: 3, arbitrary: path.map((p) => ['mkdir', '-p', p]) },
      { weight: 3, arbitrary: path.chain((p) => fc.nat(99).map((n) => ['sh', '-c', `echo ${n} > ${p}`])) },
      { weight: 3, arbitrary: path.chain((p) => fc.constantFrom('700', '750').map((m) => ['chmod', m, p])) },
      { weight: 1, arbitrary: path.map((p) => ['rm', '-r', p]) },
    );
    const script = (steps: string[][]): string =>
      steps.map((step) => `${step.map((word) => `'${word}'`).join(' ')} 2>/dev/null`).join('\n');
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(change, { maxLength: 9 }), { minLength: 2, maxLength: 4 }),
        async (all) => {
          const work = (steps: string[][]) => async (dir: string) =>
            void run('sh', ['-c', `cd ${dir} && { ${script([...steps, ['true']])}\n}`]);
          const layers = await Layers.on(t, kept, work(all[0]!));
          let seen = await shown(layers.path(1, 'fs'));
          for (const steps of all.slice(1)) seen = await layers.change(work(steps));
          assert.deepEqual(await layers.applied(t), seen);
        },
      ),
      { numRuns: 60 },
    );
  });

  test('given whiteouts that are files, the layer deletes what they hide', async (t) => {
    const layers = await Layers.on(t, [], base);
    await layers.add();
    const dir = layers.path(2, 'fs');
    await mkdir(join(dir, 'a'));
    for (const name of ['a/f', 'a/plain', 'big']) {
      await writeFile(join(dir, name), '');
      if (name !== 'a/plain') sys.lsetxattr(join(dir, name), 'trusted.overlay.whiteout', Buffer.from('y'));
    }
    // Only where the directory says that it has such: `big` is an empty file.
    sys.lsetxattr(join(dir, 'a'), 'trusted.overlay.opaque', Buffer.from('x'));
    await layers.add();
    const applied = await layers.applied(t);
    assert.deepEqual(
      ['a/f', 'a/plain', 'big'].map((name) => applied[name]),
      [undefined, '644 ', '644 '],
    );
  });

  test('given a redirect that leads out, or one that the kernel refuses, so does the layer', async (t) => {
    for (const [option, mark, target] of [
      ['redirect_dir=on', 'trusted', '/../etc'],
      ['redirect_dir=on', 'trusted', '..'],
      ['redirect_dir=on', 'trusted', 'a/b'],
      ['userxattr', 'user', 'a'],
    ] as const) {
      const layers = await Layers.on(t, [option], base);
      await layers.add();
      const dir = join(layers.path(2, 'fs'), 'moved');
      await mkdir(dir);
      sys.lsetxattr(dir, `${mark}.overlay.redirect`, Buffer.from(target));
      await assert.rejects(layers.applied(t), (error) => isKind(error, 'FailedPrecondition'), target);
    }
  });

  test('given hard links changed under an index, a diff and a commit are refused', async (t) => {
    const root = await tempDir(t);
    const s = await openOverlayfs(root);
    t.after(() => s.close());
    const [lower] = await s.prepare('below', '');
    await writeFile(join(lower!.source, 'one'), 'old');
    run('ln', [join(lower!.source, 'one'), join(lower!.source, 'two')]);
    await s.commit('base', 'below');
    const [mount] = await s.prepare('work', 'base');
    const off = ['index=off', 'redirect_dir=off', 'metacopy=off'];
    const own = mount!.options.filter((option) => !off.includes(option));
    await withMounts([{ ...mount!, options: [...own, 'index=on'] }], async (mounted) => {
      await writeFile(join(mounted, 'one'), 'new');
      await rm(join(mounted, 'one'));
      assert.equal(await readFile(join(mounted, 'two'), 'utf8'), 'new');
    });
    const refused = (error: unknown) => isKind(error, 'FailedPrecondition') && /index=on/.test(String(error));
    await assert.rejects(
      diffLayer(await s.view('look', 'base'), [mount!], async () => undefined),
      refused,
    );
    await assert.rejects(s.commit('lost', 'work'), refused);
  });

  test('given a file without content, a commit is refused, for no later mount could read it', async (t) => {
    const root = await tempDir(t);
    const s = await openOverlayfs(root);
    t.after(() => s.close());
    const [lower] = await s.prepare('below', '');
    await base(lower!.source);
    await s.commit('base', 'below');
    const [mount] = await s.prepare('work', 'base');
    assert.ok(mount!.options.includes('metacopy=off') && mount!.options.includes('redirect_dir=off'));
    const own = mount!.options.filter((option) => !option.endsWith('=off'));
    await withMounts([{ ...mount!, options: [...own, ...kept] }], (mounted) =>
      chmod(join(mounted, 'big'), 0o600),
    );
    await assert.rejects(s.commit('lost', 'work'), /metacopy=on/);

    // When: done as the error says, it is committed.
    await withMounts([{ ...mount!, options: [...own, ...kept] }], (mounted) =>
      appendFile(join(mounted, 'big'), ''),
    );
    await s.commit('kept', 'work');
  });
});
