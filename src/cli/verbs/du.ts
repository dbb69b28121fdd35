/** `ebbtide du`: bytes by image, lease, namespace or snapshotter, and what a removal would free. */
import { type Command, Option } from 'commander';
import { type UsageGroup, type UsageReport, usageGroups } from '../../gc/retained.js';
import { bytes, type Column, type Output, shortTime } from '../output.js';
import { storeVerb } from '../runner.js';

interface Options {
  by: UsageGroup;
  allNamespaces?: boolean;
}
type Row = UsageReport['rows'][number];

export function du(program: Command): void {
  program
    .command('du')
    .description('disk usage: all a row reaches, what it shares with others, what its removal would free')
    .addOption(new Option('--by <what>', 'what the rows are').choices([...usageGroups]).default('image'))
    .option('-A, --all-namespaces', 'rows of all namespaces (always so for --by namespace)')
    .action(
      storeVerb<Options>(
        async ({ db, ctx, out }, _args, { by, allNamespaces }) => {
          const everywhere = allNamespaces === true || by === 'namespace';
          const report = await db.du(everywhere ? { signal: ctx.signal } : ctx, { by });
          out.object(report, () => print(out, report));
        },
        ({ by, allNamespaces }) => ({ allNamespaces: allNamespaces === true || by === 'namespace' }),
      ),
    );
}

function print(out: Output, { by, rows, kept, garbage }: UsageReport): void {
  const single: Column<Row>[] = [
    { title: 'NAMESPACE', value: (r) => r.namespace ?? '' },
    { title: 'EXPIRES', value: (r) => (r.expiresAt === undefined ? '-' : shortTime(r.expiresAt)) },
  ];
  const owner: Column<Row> = {
    title: 'HOST',
    value: ({ host }) => (host ? `${host.id} (${host.state})` : '-'),
  };
  out.table<Row>(rows, [
    { title: by.toUpperCase(), value: (r) => r.name },
    ...(rows.some(({ host }) => host !== undefined) ? [owner] : []),
    ...(by === 'image' || by === 'lease' ? single : []),
    { title: 'TOTAL', value: (r) => bytes(r.total), right: true },
    { title: 'SHARED', value: (r) => bytes(r.shared), right: true },
    { title: 'RETAINED', value: (r) => bytes(r.retained), right: true },
  ]);
  out.line(`the whole store: ${bytes(kept)} kept, ${bytes(garbage)} garbage`);
}
