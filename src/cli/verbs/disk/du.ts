/** `ebbtide du`: what uses the disk, what a removal would free, and where the rest is. */
import { type Command, Option } from 'commander';
import { type UsageGroup, usageGroups } from '../../../gc/report/retained.js';
import { usageDocument } from '../../output/documents.js';
import { bytes, type Column, type Output, printable, shortTime } from '../../output/output.js';
import { printStore } from '../../output/usage-lines.js';
import { listed, readVerb } from '../../runner.js';

interface Options {
  by: UsageGroup;
  allNamespaces?: boolean;
  without?: string[];
  disk: boolean;
}
type Report = ReturnType<typeof usageDocument>;
type Row = Report['rows'][number];

export function du(program: Command): void {
  listed(program.command('du'))
    .description('disk usage: what each row reaches, what it shares with others, what its removal would free')
    .addOption(new Option('--by <what>', 'what the rows are').choices([...usageGroups]).default('root'))
    .option('-A, --all-namespaces', 'rows of all namespaces (always so for --by namespace)')
    .option('--without <names...>', 'what removing all of these rows (NAME or KIND/NAME) would free together')
    .option('--no-disk', 'do not measure the disk, which reads all directories')
    .action(
      readVerb<Options>(
        async ({ db, ctx, out }, _args, { by, allNamespaces, without, disk }) => {
          const everywhere = isEverywhere(by, allNamespaces);
          const usage = await db.du(everywhere ? { signal: ctx.signal } : ctx, { by, without, disk });
          const report = usageDocument(usage);
          if (out.json) out.document(report);
          else print(out, report);
        },
        ({ by, allNamespaces }) => ({ allNamespaces: isEverywhere(by, allNamespaces) }),
      ),
    );
}

const isEverywhere = (by: UsageGroup, allNamespaces: boolean | undefined): boolean =>
  allNamespaces === true || by === 'namespace' || by === 'none';

function print(out: Output, report: Report): void {
  const { by, rows, all, without } = report;
  const single: Column<Row>[] = [
    { title: 'NAMESPACE', value: (r) => r.namespace ?? '' },
    {
      title: 'EXPIRES',
      minor: true,
      whole: true,
      value: (r) => (r.expiresAt === undefined ? '-' : shortTime(r.expiresAt)),
    },
  ];
  const buildCache: Column<Row>[] = [
    { title: 'BUILD CACHE', value: ({ cache }) => cache?.description ?? '-' },
    {
      title: 'LAST USED',
      minor: true,
      whole: true,
      value: ({ cache }) => (cache?.lastUsedAt === undefined ? '-' : shortTime(cache.lastUsedAt)),
    },
  ];
  const kind: Column<Row> = { title: 'KIND', value: (r) => r.kind };
  const owner: Column<Row> = {
    title: 'HOST',
    value: ({ host }) => (host ? `${host.id} (${host.state})` : '-'),
  };
  if (by !== 'none')
    out.rows<Row>(rows, [
      ...(by === 'root' || by === 'label' || by === 'collector' ? [kind] : []),
      { title: by.toUpperCase(), value: (r) => r.name, isName: true },
      ...(rows.some(({ host }) => host !== undefined) ? [owner] : []),
      ...(rows.some(({ cache }) => cache !== undefined) ? buildCache : []),
      ...(by === 'namespace' || by === 'snapshotter' ? [] : single),
      { title: 'TOTAL', value: (r) => bytes(r.total), right: true },
      { title: 'SHARED', value: (r) => bytes(r.shared), right: true, minor: true },
      { title: 'RETAINED', value: (r) => bytes(r.retained), right: true },
    ]);
  if (out.isRowsOnly) return;
  if (rows.length > 0) {
    out.line(
      `all rows reach ${bytes(all.total)}: ${bytes(all.alone)} of a single row, ${bytes(all.shared)} shared; without them all ${bytes(all.retained)} would go`,
    );
  }
  if (without !== undefined) {
    const { names, total, retained } = without;
    out.line(
      `without ${printable(names.join(', '))}: ${bytes(retained)} freed of the ${bytes(total)} they reach`,
    );
  }
  printStore(out, report);
}
