/** `ebbtide du`: what holds the disk, what a removal would free, and where the rest is. */
import { type Command, Option } from 'commander';
import type { DiskReport } from '../../gc/disk-report.js';
import { type UsageGroup, type UsageReport, usageGroups } from '../../gc/retained.js';
import { bytes, type Column, type Output, printable, shortTime } from '../output.js';
import { storeVerb } from '../runner.js';

interface Options {
  by: UsageGroup;
  allNamespaces?: boolean;
  without?: string[];
  disk: boolean;
}
type Row = UsageReport['rows'][number];

export function du(program: Command): void {
  program
    .command('du')
    .description('disk usage: all a row reaches, what it shares with others, what its removal would free')
    .addOption(new Option('--by <what>', 'what the rows are').choices([...usageGroups]).default('root'))
    .option('-A, --all-namespaces', 'rows of all namespaces (always so for --by namespace)')
    .option('--without <names...>', 'what removing all these rows (NAME or KIND/NAME) would free together')
    .option('--no-disk', 'leave out the lines of the disk, for which all directories are read')
    .action(
      storeVerb<Options>(
        async ({ db, ctx, out }, _args, { by, allNamespaces, without, disk }) => {
          const everywhere = allNamespaces === true || by === 'namespace';
          const report = await db.du(everywhere ? { signal: ctx.signal } : ctx, { by, without, disk });
          out.object(report, () => print(out, report));
        },
        ({ by, allNamespaces }) => ({ allNamespaces: allNamespaces === true || by === 'namespace' }),
      ),
    );
}

function print(out: Output, report: UsageReport): void {
  const { by, rows, kept, garbage, without } = report;
  const single: Column<Row>[] = [
    { title: 'NAMESPACE', value: (r) => r.namespace ?? '' },
    { title: 'EXPIRES', value: (r) => (r.expiresAt === undefined ? '-' : shortTime(r.expiresAt)) },
  ];
  const kind: Column<Row> = { title: 'KIND', value: (r) => r.kind };
  const owner: Column<Row> = {
    title: 'HOST',
    value: ({ host }) => (host ? `${host.id} (${host.state})` : '-'),
  };
  out.table<Row>(rows, [
    ...(by === 'root' || by === 'label' || by === 'collector' ? [kind] : []),
    { title: by.toUpperCase(), value: (r) => r.name },
    ...(rows.some(({ host }) => host !== undefined) ? [owner] : []),
    ...(by === 'namespace' || by === 'snapshotter' ? [] : single),
    { title: 'TOTAL', value: (r) => bytes(r.total), right: true },
    { title: 'SHARED', value: (r) => bytes(r.shared), right: true },
    { title: 'RETAINED', value: (r) => bytes(r.retained), right: true },
  ]);
  if (without !== undefined) {
    const { names, total, retained } = without;
    out.line(
      `without ${printable(names.join(', '))}: ${bytes(retained)} freed of the ${bytes(total)} they reach`,
    );
  }
  out.line(`the whole store: ${bytes(kept)} kept, ${bytes(garbage)} garbage`);
  if (report.disk !== undefined) printDisk(out, report, report.disk);
}

/** Lines that add up to what `du` says of the root. */
function printDisk(out: Output, { kept, garbage }: UsageReport, disk: DiskReport): void {
  const { root, total, lines, orphans, fileSystem } = disk;
  const objects = lines.blobs + lines.snapshots;
  const parts: [string, number][] = [
    ['kept', kept],
    ['garbage', garbage],
    ['orphans', orphans],
    ['rounding', objects - kept - garbage - orphans],
    ['unfinished', lines.unfinished],
    ['trash', lines.trash],
    ['damaged', lines.damaged],
    ['own files', lines.store],
    ['total', total],
  ];
  out.line();
  out.line(`disk under ${printable(root)}`);
  for (const [name, n] of parts) out.line(`  ${name.padEnd(11)} ${bytes(n).padStart(11)}  ${n}`);
  const { size, used, free } = fileSystem;
  out.line(`file system   ${bytes(size)}, ${bytes(used)} used, ${bytes(free)} free`);
}
