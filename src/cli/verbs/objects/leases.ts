/** `ebbtide leases ls|create|add|rm` */
import type { Command } from 'commander';
import type { CallContext } from '../../../context.js';
import { invalidArgument } from '../../../errors.js';
import { Label } from '../../../model/labels.js';
import type { StringMap } from '../../../model/records.js';
import { parseDuration } from '../../../model/time.js';
import { blobDigest, snapshotKey } from '../../digest-arguments.js';
import { leaseDocument } from '../../output/documents.js';
import { labelText, shortTime } from '../../output/output.js';
import { collectLabel, listed, readVerb, storeVerb } from '../../runner.js';
import type { Store } from '../../store.js';

interface CreateOptions {
  label?: Record<string, string>;
  expires?: string;
  flat?: boolean;
}

export function leases(program: Command): void {
  const command = program.command('leases').description('leases of the namespace');

  listed(command.command('ls [filter...]'))
    .description('list leases with their resources')
    .action(
      readVerb(async ({ db, ctx, out }, filters) => {
        const rows = [];
        for (const lease of await db.leases.list(ctx, ...filters)) {
          rows.push({ ...leaseDocument(lease), resources: await db.leases.listResources(ctx, lease) });
        }
        out.rows(rows, [
          { title: 'ID', value: (l) => l.id },
          { title: 'CREATED', minor: true, whole: true, value: (l) => shortTime(l.createdAt) },
          {
            title: 'EXPIRES',
            minor: true,
            whole: true,
            value: (l) => (l.expiresAt === undefined ? '-' : shortTime(l.expiresAt)),
          },
          { title: 'HOLDS', value: (l) => l.resources.length, right: true },
          { title: 'LABELS', minor: true, value: (l) => labelText(withoutExpiry(l.labels)) },
        ]);
      }),
    );

  command
    .command('create [id]')
    .description('make a lease; prints its id')
    .option('--label <key=value>', 'label (repeatable)', collectLabel)
    .option('--expires <duration>', 'expire after this long (90s, 24h, 1h30m)')
    .option('--flat', 'keep its resources, but not what they refer to')
    .action(
      storeVerb<CreateOptions>(async ({ db, ctx, out }, [id], { label, expires, flat }) => {
        const expiresAfter = expires === undefined ? undefined : parseDuration(expires);
        if (expires !== undefined && (expiresAfter === undefined || expiresAfter <= 0n)) {
          throw invalidArgument(`"${expires}" is not a valid duration`, { remedy: 'like 90s, 24h or 1h30m' });
        }
        const lease = await db.leases.create(ctx, {
          ...(id === undefined ? { randomId: true } : { id }),
          labels: { ...label, ...(flat && { [Label.gcFlat]: 'true' }) },
          ...(expiresAfter !== undefined && { expiresAfter }),
        });
        out.object(leaseDocument(lease), () => out.line(lease.id));
      }),
    );

  command
    .command('add <lease> <type> <id>')
    .description('add a resource to a lease; type: content, ingests, images, snapshots/<snapshotter>')
    .action(
      storeVerb<object, [lease: string, type: string, id: string]>(
        async ({ db, ctx, out }, [lease, type, text]) => {
          const id = await resourceId(db, ctx, type, text);
          await db.leases.addResource(ctx, { id: lease }, { type, id });
          out.object({ lease, type, id }, () => out.line(`${lease} ${type} ${id}`));
        },
      ),
    );

  command
    .command('rm <id...>')
    .description('delete leases; the next collection removes what only they kept')
    .option('--sync', 'collect garbage before returning')
    .action(
      storeVerb<{ sync?: boolean }>(async ({ db, ctx, out }, ids, { sync }) => {
        for (const id of ids) await db.leases.delete(ctx, { id });
        if (sync) await db.garbageCollect({ signal: ctx.signal }, { massGuard: true });
        out.object({ removed: ids }, () => {
          for (const id of ids) out.line(id);
        });
      }),
    );
}

const SNAPSHOTS = 'snapshots/';

/** The id of an object that a lease is to keep. */
async function resourceId(db: Store, ctx: CallContext, type: string, text: string): Promise<string> {
  if (type === 'content') return blobDigest(db, ctx, text);
  return type.startsWith(SNAPSHOTS) ? snapshotKey(db, ctx, type.slice(SNAPSHOTS.length), text) : text;
}

/** The expiry has a column of its own. */
function withoutExpiry({ [Label.gcExpire]: _, ...labels }: StringMap): StringMap {
  return labels;
}
