/** `ebbtide --containerd-root DIR salvage -o FILE`: a `meta.db` that does not open any more, brought back in a new file. */
import type { Command } from 'commander';
import { quoted } from '../../../any-host/quoted.js';
import type { SalvageReport } from '../../../any-host/salvage/salvage.js';
import { invalidArgument } from '../../../errors.js';
import { type Output, printable, shortTime } from '../../output/output.js';
import { verb } from '../../runner.js';

interface Options {
  output?: string;
}

export function salvage(program: Command): void {
  program
    .command('salvage')
    .description(
      "of another program's root (--containerd-root) whose metadata does not open any more: write what can be read, and what is known from elsewhere, into a new file",
    )
    .option('-o, --output <file>', 'the new file; the damaged one is only read')
    .action(
      verb<Options>(
        async ({ options: { containerdRoot }, out, signal }, _args, { output }) => {
          if (containerdRoot === undefined)
            throw invalidArgument("salvage is for another program's root", {
              remedy: 'name one with --containerd-root; a store of ebbtide is restored from a backup',
            });
          if (output === undefined)
            throw invalidArgument('where is the new file to be?', {
              remedy: 'name a file that is not there with -o',
            });
          const { salvage: bringBack } = await import('../../../any-host/salvage/salvage.js');
          const report = await bringBack(containerdRoot, output, signal);
          if (out.json) out.document(documentOf(report));
          else print(out, report);
        },
        { readsAnyRoot: true },
      ),
    );
}

const documentOf = ({ output, before, after, newest, isNamed, ...report }: SalvageReport): object => ({
  ...report,
  path: output,
  beforeBytes: before,
  afterBytes: after,
  ...(newest !== undefined && { at: newest }),
  isNewest: isNamed,
});

/** Lines of each kind: --json has all. */
const SHOWN_MAX = 10;

function print(
  out: Output,
  { metadata, output, newest, isNamed, records, gaps, leftOut, unplaced, notes }: SalvageReport,
): void {
  out.rows(records, [
    { title: 'NAMESPACE', value: (r) => r.namespace },
    { title: 'KIND', value: (r) => r.kind },
    { title: 'CURRENT', value: (r) => String(r.current), right: true },
    { title: 'OLDER', value: (r) => String(r.older), right: true },
    { title: 'REBUILT', value: (r) => String(r.rebuilt), right: true },
  ]);
  if (newest !== undefined) out.line(`newest change  ${shortTime(newest)}`);
  if (gaps.length === 0)
    out.line(
      isNamed ? 'nothing is missing: the file is whole' : 'nothing is missing of the tree that was taken',
    );
  list(out, 'not readable', gaps, ({ bucket, from, to, page, reason }) => {
    const range =
      from === '' && to === undefined
        ? 'all of it'
        : `from "${from}"${to === undefined ? '' : ` to "${to}"`}`;
    return `${bucket || 'the root'}: ${range}${page === undefined ? '' : `, page ${page}`}: ${reason}`;
  });
  list(
    out,
    'left out',
    leftOut,
    ({ kind, namespace, key, reason }) => `${kind} ${key} in ${namespace}: ${reason}`,
  );
  list(
    out,
    'place unknown',
    unplaced,
    ({ kind, key, namespaces }) => `${kind} ${key}: could be in ${namespaces.join(', ')}`,
  );
  list(out, 'notes', notes, (note) => note);
  out.line();
  out.line('to use it, when its owner is stopped:');
  out.line(
    printable(
      `  mv ${quoted(metadata)} ${quoted(`${metadata}.damaged`)} && cp ${quoted(output)} ${quoted(metadata)}`,
    ),
  );
}

function list<T>(out: Output, title: string, all: readonly T[], text: (one: T) => string): void {
  if (all.length === 0) return;
  out.line(`${title}  ${all.length}`);
  for (const one of all.slice(0, SHOWN_MAX)) out.line(printable(`  ${text(one)}`));
  if (all.length > SHOWN_MAX) out.line(`  and ${all.length - SHOWN_MAX} more (--json)`);
}
