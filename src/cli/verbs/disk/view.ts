/** `ebbtide view`: what holds the disk, as a page for a browser. */
import type { Command } from 'commander';
import { bytes } from '../../output/output.js';
import { checkTextOutput, STDOUT, writeText } from '../../output/text-file.js';
import { readVerb } from '../../runner.js';

interface Options {
  output: string;
  disk: boolean;
  json?: boolean;
}

export function view(program: Command): void {
  program
    .command('view')
    .description('what holds the disk, as a page for a browser: one file, which loads nothing')
    .option('-o, --output <file>', 'file to write, or - for standard output', STDOUT)
    .option('--no-disk', 'sizes of the records: do not measure the disk, which reads all directories')
    .action(
      readVerb<Options>(
        async ({ db, ctx: { signal }, out, progress }, _args, { output, disk }) => {
          progress.count('reading the store', 0);
          const pieces = db.picture(signal ? { signal } : {}, { format: 'html', disk });
          const size = await writeText(output, pieces, signal);
          progress.end();
          if (output === STDOUT) return;
          out.object({ path: output, size }, () =>
            out.line(`${output}: ${bytes(size)}; open it in a browser`),
          );
        },
        ({ output, json }) => {
          checkTextOutput(output, 'the page', json === true);
          return { allNamespaces: true };
        },
      ),
    );
}
