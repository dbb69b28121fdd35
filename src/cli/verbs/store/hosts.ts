/** `ebbtide hosts ls|rm`: the hosts that share a tree over etcd. */
import type { Command } from 'commander';
import { type HostRemoval, noSharedTree } from '../../../cluster-hosts.js';
import { hostDocument } from '../../output/documents.js';
import { shortTime } from '../../output/output.js';
import { listed, storeVerb } from '../../runner.js';
import type { HostRecords, Store } from '../../store.js';

export function hosts(program: Command): void {
  const command = program.command('hosts').description('hosts that share a tree over etcd');

  listed(command.command('ls'))
    .description('list hosts: state, last contact, and the leases each keeps')
    .action(
      storeVerb(
        async ({ db, out }) => {
          out.rows((await hostsOf(db).list()).map(hostDocument), [
            { title: 'HOST', value: (h) => h.id },
            { title: 'STATE', value: (h) => h.state },
            {
              title: 'SEEN',
              minor: true,
              whole: true,
              value: (h) => (h.seenAt === undefined ? '-' : shortTime(h.seenAt)),
            },
            { title: 'DIRECTORIES', value: (h) => h.backend },
            { title: 'LEASES', value: (h) => h.leases, right: true },
          ]);
        },
        { allNamespaces: true },
      ),
    );

  command
    .command('rm <host...>')
    .description('remove hosts that will not return, with their own leases')
    .option('--sync', 'collect garbage before returning')
    .action(
      storeVerb<{ sync?: boolean }>(
        async ({ db, ctx, out }, ids, { sync }) => {
          const removed: HostRemoval[] = [];
          for (const id of ids) removed.push(await hostsOf(db).remove(id, ctx.signal));
          if (sync) await db.garbageCollect({ signal: ctx.signal }, { massGuard: true });
          out.object({ removed }, () => {
            for (const { id, leases } of removed) {
              out.line(id);
              for (const lease of leases) out.line(`  lease ${lease.namespace}/${lease.id}`);
            }
          });
        },
        { allNamespaces: true },
      ),
    );
}

function hostsOf({ hosts: found }: Store): HostRecords {
  if (found === undefined) throw noSharedTree();
  return found;
}
