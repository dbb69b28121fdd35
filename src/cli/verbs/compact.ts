/**
 * `ebbtide compact`: rewrites the file of the records without its free pages. REQUIRES: nobody has the store
 * open.
 */
import type { Command } from 'commander';
import { compactStore } from '../../compact-store.js';
import { invalidArgument, unavailable } from '../../errors.js';
import { etcdConfig } from '../etcd-options.js';
import { bytes } from '../output/output.js';
import { findDaemon, verb } from '../runner.js';

export function compact(program: Command): void {
  program
    .command('compact')
    .description('rewrite the file of the records without its free space; the store must not be in use')
    .action(
      verb(async ({ options, out }) => {
        const { root } = options;
        if (etcdConfig(options) !== undefined) {
          throw invalidArgument('the records are in etcd: there is no file to compact', {
            remedy: 'compact and defragment etcd itself (etcdctl compact, etcdctl defrag)',
          });
        }
        const daemon = await findDaemon(root);
        if (daemon !== undefined) {
          throw unavailable(`a daemon has the store in ${root} open`, {
            object: daemon,
            remedy: 'stop the daemon, compact the store, and start it again',
          });
        }
        const report = await compactStore(root, { log: (_level, message) => out.notice(message) });
        const { before, after, reserve } = report;
        out.object({ beforeBytes: before, afterBytes: after, reserveBytes: reserve }, () => {
          out.line(`before  ${bytes(before)}`);
          out.line(`after   ${bytes(after)}, and ${bytes(reserve)} kept for a full disk`);
        });
      }),
    );
}
