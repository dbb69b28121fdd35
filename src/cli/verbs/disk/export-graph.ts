/** `ebbtide export-graph`: what holds the disk, as a file for the programs that show such trees. */
import { type Command, Option } from 'commander';
import { fileFormats, type PictureFormat } from '../../../pictures/draw.js';
import { bytes } from '../../output/output.js';
import { checkTextOutput, STDOUT, writeText } from '../../output/text-file.js';
import { readVerb } from '../../runner.js';

interface Options {
  as: PictureFormat;
  output: string;
  disk: boolean;
  json?: boolean;
}

export function exportGraph(program: Command): void {
  program
    .command('export-graph')
    .description('what holds the disk, by namespace and root, as a file for other programs')
    .addOption(formatOption())
    .option('-o, --output <file>', 'file to write, or - for standard output', STDOUT)
    .option('--no-disk', 'sizes of the records: do not measure the disk, which reads all directories')
    .action(
      readVerb<Options>(
        async ({ db, ctx: { signal }, out, progress }, _args, { as: format, output, disk }) => {
          progress.count('reading the store', 0);
          const pieces = db.picture(signal ? { signal } : {}, { format, disk });
          const size = await writeText(output, pieces, signal);
          progress.end();
          if (output === STDOUT) return;
          out.object({ path: output, format, size }, () =>
            out.line(`${output}: ${bytes(size)} of ${format}`),
          );
        },
        ({ output, json }) => {
          checkTextOutput(output, 'the picture', json === true);
          return { allNamespaces: true };
        },
      ),
    );
}

/** Its value is not called format, which with lists is how they are printed. */
function formatOption(): Option {
  const option = new Option('--format <format>', 'the program that opens it')
    .choices([...fileFormats])
    .default('json');
  option.attributeName = () => 'as';
  return option;
}
