/** `ebbtide containers ls|create|rm` */
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import type { Mount } from '../../../backends/contract.js';
import { wrap } from '../../../errors.js';
import { underLease } from '../../../images/services.js';
import { unpackImage } from '../../../images/unpack.js';
import { labelText } from '../../output/output.js';
import { collectLabel, listed, readVerb, snapshotterOption, storeVerb } from '../../runner.js';
import { snapshotterOf } from './snapshots.js';

const SPEC_TYPE = 'types.containerd.io/opencontainers/runtime-spec/1/Spec';

interface CreateOptions {
  image?: string;
  snapshotter: string;
  runtime: string;
  spec?: string;
  label?: Record<string, string>;
}

export function containers(program: Command): void {
  const command = program.command('containers').description('containers of the namespace');

  listed(command.command('ls [filter...]'))
    .description('list containers')
    .action(
      readVerb(async ({ db, ctx, out }, filters) => {
        out.rows(await db.containers.list(ctx, ...filters), [
          { title: 'ID', value: (c) => c.id },
          { title: 'IMAGE', value: (c) => c.image || '-' },
          { title: 'RUNTIME', minor: true, value: (c) => c.runtime.name },
          { title: 'SNAPSHOT', value: (c) => (c.snapshotter ? `${c.snapshotter}/${c.snapshotKey}` : '-') },
          { title: 'LABELS', minor: true, value: (c) => labelText(c.labels) },
        ]);
      }),
    );

  command
    .command('create <id>')
    .description(
      'create a container record; with --image also its writable snapshot, unpacking the image if necessary',
    )
    .option('--image <name>', 'image it runs')
    .addOption(snapshotterOption())
    .option('--runtime <name>', 'runtime', 'io.containerd.runc.v2')
    .option('--spec <file>', 'runtime spec (JSON)')
    .option('--label <key=value>', 'label (repeatable)', collectLabel)
    .action(
      storeVerb<CreateOptions, [id: string]>(
        async ({ db, ctx, out, progress }, [id], options) => {
          const spec = { typeUrl: SPEC_TYPE, value: await readSpec(options.spec) };
          // Looked up first, because a lease would create a mistyped namespace.
          if (options.image !== undefined) await db.images.get(ctx, options.image);
          // A lease keeps the new snapshot until the container does.
          await underLease(db, ctx, 'unpack', async (leased) => {
            let mounts: Mount[] = [];
            if (options.image !== undefined) {
              const snapshotter = snapshotterOf(db, options.snapshotter);
              const image = await db.images.get(leased, options.image);
              const { chainId } = await unpackImage(db, leased, image, options.snapshotter, {
                progress: (p) => progress.report(p),
              });
              mounts = await snapshotter.prepare(leased, id, chainId);
            }
            const container = await db.containers.create(leased, {
              id,
              image: options.image ?? '',
              runtime: { name: options.runtime },
              spec,
              snapshotter: options.image === undefined ? '' : options.snapshotter,
              snapshotKey: options.image === undefined ? '' : id,
              ...(options.label && { labels: options.label }),
            });
            out.object({ ...container, mounts }, () => out.line(container.id));
          });
        },
        ({ image, snapshotter }) => ({ snapshotter: image === undefined ? undefined : snapshotter }),
      ),
    );

  command
    .command('rm <id...>')
    .description('delete containers; the next collection removes their snapshots')
    .action(
      storeVerb(async ({ db, ctx, out }, ids) => {
        for (const id of ids) await db.containers.delete(ctx, id);
        out.object({ removed: ids }, () => {
          for (const id of ids) out.line(id);
        });
      }),
    );
}

async function readSpec(file: string | undefined): Promise<Uint8Array> {
  if (file === undefined) return Buffer.from('{}');
  const text = await readFile(file).catch((error: unknown) => {
    throw wrap(`cannot read the spec ${file}`, error, { object: file });
  });
  try {
    JSON.parse(text.toString());
  } catch (error) {
    throw wrap(`the spec ${file} is not JSON`, error, { object: file });
  }
  return text;
}
