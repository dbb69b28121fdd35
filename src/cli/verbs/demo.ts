/** `ebbtide demo [LAYOUT]`: the whole life of images in a fresh store, checked against the disk. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { Command } from 'commander';
import { canMount } from '../../backends/mounts.js';
import { openDB, type SnapshotterName } from '../../db.js';
import { unknownError } from '../../errors.js';
import { makeLayout } from '../demo/layout.js';
import { layerSources } from '../demo/sources.js';
import { Walkthrough } from '../demo/walkthrough.js';
import { etcdConfig } from '../etcd-options.js';
import { verb } from '../runner.js';

interface Options {
  snapshotter?: SnapshotterName;
  keep?: boolean;
}

export function demo(program: Command): void {
  program
    .command('demo [layout]')
    .description('show import, unpack, containers, leases and collection on real images, in a fresh store')
    .option(
      '-s, --snapshotter <name>',
      'snapshotter (default: overlayfs where mounts are permitted, else native)',
    )
    .option('--keep', 'keep the store directory')
    .action(
      verb<Options>(async ({ out, progress, signal, options }, [layout], { snapshotter, keep }) => {
        const dir = await mkdtemp(join(tmpdir(), 'ebbtide-demo-'));
        try {
          const name = snapshotter ?? ((await canMount()).ok ? 'overlayfs' : 'native');
          let source = layout;
          if (source === undefined) {
            source = join(dir, 'layout');
            if (!out.json) out.line('making two OCI images of installed packages, sharing a base layer');
            await makeLayout(source, layerSources());
          }
          const root = join(dir, 'store');
          const etcd = etcdConfig(options);
          // A tree of its own: the demo must find at its end what it found at its beginning.
          const shared = etcd && { etcd: { ...etcd, prefix: `${basename(dir)}/` }, enableEtcdGC: true };
          await using db = await openDB({ root, snapshotters: [name], ...shared });
          const walk = new Walkthrough({ db, root, snapshotter: name, out, progress, signal });
          await walk.run(source);
          const problem = walk.problem();
          if (out.json) out.document(walk.report());
          if (problem !== undefined) throw unknownError(problem);
        } finally {
          if (keep) process.stderr.write(`kept ${dir}\n`);
          else await rm(dir, { recursive: true, force: true });
        }
      }),
    );
}
