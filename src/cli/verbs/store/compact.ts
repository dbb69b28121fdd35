/**
 * `ebbtide compact`: rewrites the file of the records without its free pages. REQUIRES: no process has the store open. With
 * `--containerd-root` the owner may run, and the small file is another one.
 */
import type { Command } from 'commander';
import { quoted } from '../../../any-host/quoted.js';
import { compactStore } from '../../../compact-store.js';
import { invalidArgument, unavailable } from '../../../errors.js';
import { etcdConfig } from '../../etcd-options.js';
import { bytes, type Output } from '../../output/output.js';
import { printable } from '../../output/printable.js';
import { findDaemon } from '../../remote/find-daemon.js';
import { verb } from '../../runner.js';

interface Options {
  output?: string;
}

export function compact(program: Command): void {
  program
    .command('compact')
    .description('rewrite the file of the records without its free space; the store must not be in use')
    .option('-o, --output <file>', 'with --containerd-root: the new file; the old one stays as it is')
    .action(
      verb<Options>(
        async ({ options, out, signal }, _args, { output }) => {
          const { root, containerdRoot } = options;
          if (containerdRoot !== undefined) {
            await compactOther(containerdRoot, output, out, signal);
            return;
          }
          if (output !== undefined) {
            throw invalidArgument(
              "--output is for another program's root: a store of ebbtide is compacted in its place",
              {
                remedy: 'leave --output out, or name a root with --containerd-root',
              },
            );
          }
          if (etcdConfig(options) !== undefined) {
            throw invalidArgument('the records are in etcd: there is no file to compact', {
              remedy: 'compact and defragment etcd itself (etcdctl compact, etcdctl defrag)',
            });
          }
          await using daemon = await findDaemon(root);
          if (daemon !== undefined) {
            throw unavailable(`a daemon has the store in ${root} open`, {
              object: daemon.address,
              remedy: 'stop the daemon, compact the store, and start it again',
            });
          }
          const report = await compactStore(root, { log: (_level, message) => out.notice(message) });
          const { before, after, reserve } = report;
          out.object({ beforeBytes: before, afterBytes: after, reserveBytes: reserve }, () => {
            out.line(`before  ${bytes(before)}`);
            out.line(`after   ${bytes(after)}, and ${bytes(reserve)} kept for a full disk`);
          });
        },
        { readsAnyRoot: true },
      ),
    );
}

async function compactOther(
  directory: string,
  output: string | undefined,
  out: Output,
  signal: AbortSignal,
): Promise<void> {
  if (output === undefined) {
    throw invalidArgument(
      `${directory} is another program's, and is only read: where is the new file to be?`,
      {
        remedy: 'name a file that is not there with -o',
      },
    );
  }
  const { compactForeign } = await import('../../../any-host/compact.js');
  const { metadata, output: path, before, after } = await compactForeign(directory, output, signal);
  out.object({ beforeBytes: before, afterBytes: after, path }, () => {
    out.line(`before  ${bytes(before)}`);
    out.line(`after   ${bytes(after)}`);
    out.line();
    out.line('to use it, when its owner is stopped and has changed nothing since:');
    out.line(
      printable(
        `  mv ${quoted(metadata)} ${quoted(`${metadata}.old`)} && cp ${quoted(path)} ${quoted(metadata)}`,
      ),
    );
  });
}
