/** `ebbtide restore BACKUP`: restores a backup into a new root. */
import type { Command } from 'commander';
import { restoreBackup } from '../../../backup/restore.js';
import { problemLines, showProgress } from '../../output/backup-lines.js';
import { bytes } from '../../output/output.js';
import { verb } from '../../runner.js';
import { DAMAGED_EXIT_CODE } from './check.js';

interface Options {
  hash?: boolean;
  damaged?: boolean;
}

export function restore(program: Command): void {
  program
    .command('restore <backup>')
    .description('restore a backup into the root, which must not exist or be empty')
    .option('--hash', 'read every blob of the backup and compare its digest')
    .option('--damaged', 'restore what is left of a damaged backup')
    .action(
      verb<Options, [backup: string]>(
        async ({ options: { root }, out, progress, signal }, [backup], { hash, damaged }) => {
          const report = await restoreBackup(backup, root, {
            ...{ hash, damaged, signal },
            log: (_level, message) => out.notice(message),
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
        },
      ),
    );
}
