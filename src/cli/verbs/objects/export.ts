/** `ebbtide export NAME… -o DEST`: images into an OCI layout, blobs byte for byte. */
import type { Command } from 'commander';
import type { Sink } from '../../../backends/archive/tar/tar-writer.js';
import { invalidArgument } from '../../../errors.js';
import { exportImages } from '../../../images/export.js';
import { parsePlatformText } from '../../../images/platforms.js';
import { bytes } from '../../output/output.js';
import { readVerb, standardOutput } from '../../runner.js';

interface Options {
  output?: string;
  allPlatforms?: boolean;
  platform?: string;
  json?: boolean;
}

export function exportVerb(program: Command): void {
  program
    .command('export <name...>')
    .description(
      'export images as an OCI layout that docker load accepts too: a directory, or a tar if the name ends in .tar; - is a tar on standard output',
    )
    .option('-o, --output <path>', 'directory or .tar file to write, or -; or give - after the names')
    .option('--all-platforms', 'fail unless the blobs of every platform exist')
    .option('--platform <platform>', 'only the best match for os/arch[/variant]')
    .action(
      readVerb<Options>(
        async ({ db, ctx, out, progress }, args, options) => {
          const { names, output } = destination(args, options.output);
          const { allPlatforms, platform } = options;
          const to = output === STDOUT ? toStandardOutput(ctx.signal) : output;
          const result = await exportImages(db, ctx, names, to, {
            allPlatforms: allPlatforms === true,
            ...(platform !== undefined && { platform: parsePlatformText(platform) }),
            progress: (p) => progress.report(p),
          }).catch((error: unknown) => {
            if (error instanceof ReaderGone) return undefined;
            throw error;
          });
          progress.end();
          if (result === undefined) return;
          for (const { name, digest, reducedFrom } of result.images) {
            if (reducedFrom !== undefined) out.notice(`${name} is ${digest} there: a part of ${reducedFrom}`);
          }
          if (output === STDOUT) return;
          out.object(result, () => out.line(`${output}: ${result.blobs} blobs, ${bytes(result.bytes)}`));
        },
        ({ output, json }, args) => {
          if (destination(args, output).output === STDOUT) checkStandardOutput(json === true);
          return {};
        },
      ),
    );
}

const STDOUT = '-';

/** The reader of the archive has gone. */
class ReaderGone extends Error {}

/** InvalidArgument without a destination. */
function destination(
  args: readonly string[],
  output: string | undefined,
): { names: string[]; output: string } {
  if (output !== undefined) return { names: [...args], output };
  const names = args.slice(0, -1);
  if (args.at(-1) === STDOUT && names.length > 0) return { names, output: STDOUT };
  throw invalidArgument('the export needs a destination', {
    remedy: 'give -o, --output PATH; or - after the names for standard output',
  });
}

function checkStandardOutput(json: boolean): void {
  if (json) throw invalidArgument('--json and the archive cannot both go to standard output');
  if (standardOutput.isTerminal) {
    throw invalidArgument('the archive would go to the terminal', {
      remedy: 'redirect standard output to a file or a pipe, or give -o, --output PATH',
    });
  }
}

const toStandardOutput =
  (signal: AbortSignal | undefined): Sink =>
  async (bytes) => {
    if (!(await standardOutput.send(bytes, signal))) throw new ReaderGone();
  };
