/** `ebbtide backup DIR`: the whole store, as it is at one moment, into a directory, whoever has the store. */
import type { Command } from 'commander';
import { bytes } from '../output/output.js';
import { storeVerb } from '../runner.js';
import { DAMAGED_EXIT_CODE } from './check.js';
import { problemLines, showProgress } from './transfer-lines.js';

interface Options {
  base?: string;
  freshSnapshots?: boolean;
}

export function backup(program: Command): void {
  program
    .command('backup <directory>')
    .description(
      'copy the whole store into a new directory while it is used; exits with 5 when the store itself lacks something',
    )
    .option(
      '--base <backup>',
      'an earlier backup on the same file system: share with it what has not changed',
    )
    .option(
      '--fresh-snapshots',
      'leave out what was written to active snapshots: they are in the backup as they were prepared',
    )
    .action(
      storeVerb<Options>(
        async ({ db, out, progress, signal }, [directory], { base, freshSnapshots }) => {
          const report = await db.backup(directory!, {
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
            out.line(`copied     ${bytes(copiedBytes)}; ${linked} files have another name instead`);
            problemLines(out, report);
          });
          if (report.problems > 0) process.exitCode = DAMAGED_EXIT_CODE;
        },
        { allNamespaces: true },
      ),
    );
}
