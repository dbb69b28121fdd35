/** `ebbtide demo [LAYOUT]`: the whole life of images in a fresh store, checked against the disk. */
import { rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Command } from 'commander';
import { canMount } from '../../../backends/mounts.js';
import type { SnapshotterName } from '../../../db-options.js';
import { invalidArgument, unknownError } from '../../../errors.js';
import { openDB } from '../../../open.js';
import { temporaryDirectory } from '../../../system/temporary-directory.js';
import { makeLayout } from '../../demo/layout.js';
import { layerSources } from '../../demo/sources.js';
import { TwoHosts } from '../../demo/two-hosts.js';
import { Walkthrough } from '../../demo/walkthrough.js';
import { etcdConfig } from '../../etcd-options.js';
import { verb } from '../../runner.js';

interface Options {
  snapshotter?: SnapshotterName;
  keep?: boolean;
  twoHosts?: boolean;
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
    .option('--two-hosts', 'with --etcd: two hosts, one makes images, the other uses and collects them')
    .action(
      verb<Options>(async ({ out, progress, signal, options }, [layout], { snapshotter, keep, twoHosts }) => {
        const config = etcdConfig(options);
        if (twoHosts && config === undefined) {
          throw invalidArgument('two hosts need a shared tree', { remedy: 'give --etcd URL' });
        }
        const dir = await temporaryDirectory('demo');
        try {
          const name = snapshotter ?? ((await canMount()).ok ? 'overlayfs' : 'native');
          let source = layout;
          if (source === undefined) {
            source = join(dir, 'layout');
            if (!out.json) out.line('making two OCI images of installed packages, sharing a base layer');
            await makeLayout(source, layerSources());
          }
          // A prefix of its own: the demo must end with the same state that it began with.
          const etcd = config && { ...config, prefix: `${basename(dir)}/` };
          let walk: Walkthrough | TwoHosts;
          if (twoHosts && etcd) {
            walk = new TwoHosts({ dir, etcd, snapshotter: name, out, signal });
            await walk.run(source);
          } else {
            const root = join(dir, 'store');
            const shared = etcd && { etcd, enableEtcdGC: true };
            await using db = await openDB({ root, snapshotters: [name], ...shared });
            walk = new Walkthrough({ db, root, snapshotter: name, out, progress, signal });
            await walk.run(source);
          }
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
