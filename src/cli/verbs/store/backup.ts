/**
 * `ebbtide backup DIR`: copies the whole store, as of one moment, into a directory; works beside any other
 * process.
 */
import type { Command } from 'commander';
import { problemLines, showProgress } from '../../output/backup-lines.js';
import { bytes } from '../../output/output.js';
import { storeVerb } from '../../runner.js';
import { DAMAGED_EXIT_CODE } from './check.js';

interface Options {
  base?: string;
  freshSnapshots?: boolean;
}

export function backup(program: Command): void {
  program
    .command('backup <directory>')
    .description(
      'copy the whole store into a new directory while it is in use; exits with 5 when something is missing in the store',
    )
    .option('--base <backup>', 'earlier backup on the same file system, to share unchanged files with')
    .option(
      '--fresh-snapshots',
      'leave out what was written to active snapshots; back them up as they were prepared',
    )
    .action(
      storeVerb<Options, [directory: string]>(
        async ({ db, out, progress, signal }, [directory], { base, freshSnapshots }) => {
          const report = await db.backup(directory, {
            ...(base !== undefined && { base }),
            activeSnapshots: freshSnapshots ? 'fresh' : 'copied',
            signal,
            onProgress: showProgress(progress),
          });
          progress.end();
          out.object(report, () => {
            const { blobs, snapshots, files, linked, copiedBytes, takenAt } = report;
            out.line(`${report.directory}: the store as of ${takenAt}`);
            out.line(`blobs      ${blobs}, ${bytes(report.bytes)}`);
            out.line(`snapshots  ${snapshots} with ${files} files`);
            if (report.activeSnapshots > 0) {
              const how = freshSnapshots ? 'as they were prepared' : 'copied while they may be written to';
              out.line(`active     ${report.activeSnapshots} of these snapshots, ${how}`);
            }
            out.line(`copied     ${bytes(copiedBytes)}; ${linked} files hard-linked instead`);
            problemLines(out, report);
          });
          if (report.problems > 0) process.exitCode = DAMAGED_EXIT_CODE;
        },
        { allNamespaces: true },
      ),
    );
}
