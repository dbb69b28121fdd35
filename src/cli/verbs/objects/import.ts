/**
 * `ebbtide import SOURCE`: imports an OCI layout (directory or tar) or a `docker save` tar. `-`: standard
 * input.
 */
import { accessSync, constants } from 'node:fs';
import type { Command } from 'commander';
import { importImage, leftOutText } from '../../../images/import.js';
import { parsePlatformText } from '../../../images/platforms.js';
import type { OnProgress } from '../../../images/services.js';
import { unpackImage } from '../../../images/unpack.js';
import { fsError } from '../../../system/system-errors.js';
import { bytes } from '../../output/output.js';
import { listed, type Needs, storeVerb } from '../../runner.js';

interface Options {
  unpack?: string;
  platform?: string;
  baseName?: string;
  artifacts?: boolean;
}

export function importVerb(program: Command): void {
  listed(program.command('import <source>'))
    .description('import images: an OCI layout (directory or tar) or a docker save tar; - is standard input')
    .option('--unpack <snapshotter>', 'also build the snapshots (native, overlayfs)')
    .option(
      '--platform <platform>',
      'platform to unpack from an index: os/arch[/variant] (default: this host)',
    )
    .option('--artifacts', 'also import charts, signatures and other manifests that are not images')
    .option('--base-name <name>', 'name for images of which the source has only the tag')
    .action(
      storeVerb<Options, [source: string]>(
        async ({ db, ctx, out, progress }, [source], { unpack, platform: wanted, baseName, artifacts }) => {
          const platform = platformOf(wanted);
          const report: OnProgress = (p) => progress.report(p);
          const images = await importImage(db, ctx, source === '-' ? process.stdin : source, {
            ...(baseName && { baseName }),
            artifacts: artifacts === true,
            leftOut: (entries) => out.notice(`left out entries that are not images: ${leftOutText(entries)}`),
            progress: report,
          });
          const rows = [];
          for (const image of images) {
            const chainId =
              unpack === undefined
                ? undefined
                : (await unpackImage(db, ctx, image, unpack, { platform, progress: report })).chainId;
            rows.push({ ...image, ...(chainId !== undefined && { chainId }) });
          }
          progress.end();
          out.rows(rows, [
            { title: 'NAME', value: (i) => i.name },
            { title: 'DIGEST', value: (i) => i.target.digest },
            { title: 'SIZE', value: (i) => bytes(i.target.size), right: true },
            { title: 'SNAPSHOT', value: (i) => i.chainId ?? '-' },
          ]);
        },
        needsOf,
      ),
    );
}

const platformOf = (text: string | undefined) => (text === undefined ? undefined : parsePlatformText(text));

/** Checked first: a missing source, or an invalid option, must not leave a new store. */
function needsOf({ unpack, platform }: Options, [source = '']: readonly string[]): Needs {
  platformOf(platform);
  try {
    if (source !== '-') accessSync(source, constants.R_OK);
  } catch (error) {
    throw fsError('read', source, error);
  }
  return { creates: true, snapshotter: unpack };
}
