/** `ebbtide restore BACKUP`: a backup into a root that is not there yet. */
import type { Command } from 'commander';
import { restoreBackup } from '../../backup/restore.js';
import { bytes } from '../output/output.js';
import { verb } from '../runner.js';
import { DAMAGED_EXIT_CODE } from './check.js';
import { problemLines, showProgress } from './transfer-lines.js';

interface Options {
  hash?: boolean;
  damaged?: boolean;
}

export function restore(program: Command): void {
  program
    .command('restore <backup>')
    .description('make a store of a backup at the root, where nothing may be yet')
    .option('--hash', 'read every blob of the backup and compare its digest')
    .option('--damaged', 'restore what there is of a backup that is damaged')
    .action(
      verb<Options>(async ({ options: { root }, out, progress, signal }, [backup], { hash, damaged }) => {
        const report = await restoreBackup(backup!, root, {
          ...{ hash, damaged, signal },
          log: (_level, message) => out.note(message),
          onProgress: showProgress(progress),
        });
        progress.end();
        out.object(report, () => {
          const { blobs, snapshots, files, takenAt } = report;
          out.line(`${root}: the store as of ${takenAt}`);
          out.line(`blobs      ${blobs}, ${bytes(report.bytes)}`);
          out.line(`snapshots  ${snapshots} with ${files} files`);
          problemLines(out, report);
        });
        if (report.problems > 0) process.exitCode = DAMAGED_EXIT_CODE;
      }),
    );
}
