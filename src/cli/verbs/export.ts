/** `ebbtide export NAME… -o DEST`: images into an OCI layout, blobs byte for byte. */
import type { Command } from 'commander';
import { exportImages } from '../../images/export.js';
import { parsePlatformText } from '../../images/platforms.js';
import { bytes } from '../output.js';
import { storeVerb } from '../runner.js';

interface Options {
  output: string;
  allPlatforms?: boolean;
  platform?: string;
}

export function exportVerb(program: Command): void {
  program
    .command('export <name...>')
    .description(
      'export images as an OCI layout that docker load takes too: a directory, or a tar when the name ends in .tar',
    )
    .requiredOption('-o, --output <path>', 'directory or .tar file to write')
    .option('--all-platforms', 'fail unless the blobs of every platform are there')
    .option('--platform <platform>', 'only what fits os/arch[/variant] best')
    .action(
      storeVerb<Options>(async ({ db, ctx, out, progress }, names, { output, allPlatforms, platform }) => {
        const result = await exportImages(db, ctx, names, output, {
          allPlatforms: allPlatforms === true,
          ...(platform !== undefined && { platform: parsePlatformText(platform) }),
          progress: (p) => progress.report(`${p.phase} ${p.name}`, p.done, p.total),
        });
        progress.end();
        for (const { name, digest, reducedFrom } of result.images) {
          if (reducedFrom !== undefined) out.note(`${name} is ${digest} there: a part of ${reducedFrom}`);
        }
        out.object(result, () => out.line(`${output}: ${result.blobs} blobs, ${bytes(result.bytes)}`));
      }),
    );
}
