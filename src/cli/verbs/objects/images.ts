/** `ebbtide images ls|show|tag|label|rm` */
import type { Command } from 'commander';
import type { CallContext } from '../../../context.js';
import { isAlreadyExists, unavailable } from '../../../errors.js';
import { underLease } from '../../../images/services.js';
import type { Image } from '../../../stores/images.js';
import { bytes, labelText, shortTime } from '../../output/output.js';
import { labelArguments, listed, readVerb, storeVerb } from '../../runner.js';
import type { Store } from '../../store.js';

export function images(program: Command): void {
  const command = program.command('images').description('images of the namespace');

  listed(command.command('ls [filter...]'))
    .description('list images; filters like name==x or labels.k==v')
    .action(
      readVerb(async ({ db, ctx, out }, filters) => {
        const found = await db.images.list(ctx, ...filters);
        const { namespace } = ctx;
        const sizes = out.shows('size') && found.length > 0 ? await sizesOf(db, ctx) : undefined;
        const rows = found.map((image) => ({
          ...image,
          size: sizes?.get(rowName({ namespace, ...image })) ?? 0,
        }));
        out.rows(rows, [
          { title: 'NAME', value: (i) => i.name },
          { title: 'DIGEST', value: (i) => i.target.digest },
          { title: 'SIZE', value: (i) => bytes(i.size), right: true },
          { title: 'TYPE', minor: true, value: (i) => i.target.mediaType },
          { title: 'UPDATED', minor: true, whole: true, value: (i) => shortTime(i.updatedAt) },
          { title: 'LABELS', minor: true, value: (i) => labelText(i.labels) },
        ]);
      }),
    );

  command
    .command('show <name>')
    .description('show one image')
    .action(
      readVerb<object, [name: string]>(async ({ db, ctx, out }, [name]) => {
        const image = await db.images.get(ctx, name);
        out.object(image, () => {
          out.line(`name      ${image.name}`);
          out.line(`digest    ${image.target.digest}`);
          out.line(`type      ${image.target.mediaType}`);
          out.line(`size      ${bytes(image.target.size)} (of the descriptor's target)`);
          out.line(`created   ${shortTime(image.createdAt)}`);
          out.line(`updated   ${shortTime(image.updatedAt)}`);
          for (const [k, v] of Object.entries(image.labels)) out.line(`label     ${k}=${v}`);
        });
      }),
    );

  command
    .command('tag <image> <name>')
    .description('add a name for an image')
    .option('--force', 'replace an existing image of that name')
    .action(
      storeVerb<{ force?: boolean }, [source: string, name: string]>(
        async ({ db, ctx, out }, [source, name], { force }) => {
          const image = await tag(db, ctx, source, name, force === true);
          out.object(image, () => out.line(image.name));
        },
      ),
    );

  command
    .command('label <name> <labels...>')
    .description('set labels (key=value; key= removes)')
    .action(
      storeVerb<object, [name: string, ...labels: string[]]>(async ({ db, ctx, out }, [name, ...rest]) => {
        const labels = labelArguments(rest);
        const current = await db.images.get(ctx, name);
        const paths = Object.keys(labels).map((k) => `labels.${k}`);
        const image = await db.images.update(ctx, { ...current, labels }, ...paths);
        out.object(image, () => out.line(labelText(image.labels)));
      }),
    );

  command
    .command('rm <name...>')
    .description('delete images; the next collection removes their content')
    .option('--sync', 'collect garbage before returning')
    .action(
      storeVerb<{ sync?: boolean }>(async ({ db, ctx, out }, names, { sync }) => {
        for (const name of names) await db.images.delete(ctx, name);
        if (sync) await db.garbageCollect({ signal: ctx.signal }, { massGuard: true });
        out.object({ removed: names }, () => {
          for (const name of names) out.line(name);
        });
      }),
    );
}

/** By name: the size of the blobs and snapshots that an image reaches, as in `du`. */
async function sizesOf(db: Store, ctx: CallContext): Promise<ReadonlyMap<string, number>> {
  const { rows } = await db.du(ctx, { by: 'image' });
  return new Map(rows.map((row) => [rowName(row), row.total]));
}

/** In lists of several namespaces each image has its own. */
const rowName = ({ namespace = '', name }: { namespace?: string | undefined; name: string }): string =>
  `${namespace} ${name}`;

/** Runs under a lease on the image's target, so that nothing can remove it before the new name keeps it. */
async function tag(
  db: Store,
  ctx: CallContext,
  source: string,
  name: string,
  force: boolean,
): Promise<Image> {
  // Looked up first, because a lease would create a mistyped namespace.
  await db.images.get(ctx, source);
  return underLease(db, ctx, 'tag', async (leased) => {
    const { target } = await db.images.get(leased, source);
    await db.leases.addResource(leased, leased.lease, { type: 'content', id: target.digest });
    // Read again under the lease: the target cannot have been collected before that.
    const { labels, target: held } = await db.images.get(leased, source);
    if (held.digest !== target.digest) {
      throw unavailable(`image "${source}" was changed in the meantime`, {
        object: source,
        remedy: 'try again',
      });
    }
    const image = { name, target: held, labels };
    if (!force) return db.images.create(leased, image);
    return db.images.create(leased, image).catch((error: unknown) => {
      if (!isAlreadyExists(error)) throw error;
      return db.images.update(leased, image);
    });
  });
}
