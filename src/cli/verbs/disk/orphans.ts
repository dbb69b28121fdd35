/**
 * `ebbtide --containerd-root DIR orphans`: lists what wastes space in another program's root, and the
 * commands that remove it.
 */
import { type Command, InvalidArgumentError } from 'commander';
import type { Orphan } from '../../../any-host/orphan.js';
import type { OrphanReport } from '../../../any-host/orphans.js';
import { invalidArgument, present } from '../../../errors.js';
import { parseDuration } from '../../../model/time.js';
import { bytes, type Output, printable, shortTime } from '../../output/output.js';
import { listed, storeVerb } from '../../runner.js';

interface Options {
  olderThan?: bigint;
  /** Global option. */
  containerdRoot?: string;
}

export function orphans(program: Command): void {
  listed(program.command('orphans'))
    .description(
      "of another program's root (--containerd-root): bytes without a record, records without bytes, what nothing roots, expired leases; and what to type to remove them",
    )
    .option('--older-than <duration>', 'leave out what changed within this time (default 1m)', age)
    .action(
      storeVerb<Options>(
        async ({ db, ctx, out }, _args, { olderThan }) => {
          const [{ ForeignStore }, { findOrphans }] = await Promise.all([
            import('../../foreign-store.js'),
            import('../../../any-host/orphans.js'),
          ]);
          if (!(db instanceof ForeignStore)) throw notThere();
          const youngest = olderThan === undefined ? {} : { youngest: olderThan };
          print(out, await findOrphans(db.parts, { signal: ctx.signal, ...youngest }));
        },
        ({ containerdRoot }) => {
          if (containerdRoot === undefined) throw notThere();
          return {};
        },
      ),
    );
}

const notThere = () =>
  invalidArgument("orphans looks into another program's root", {
    remedy:
      'name one with --containerd-root; of a store of ebbtide, `check` and `gc --dry-run --full` say it',
  });

function age(text: string): bigint {
  const nanos = parseDuration(text);
  if (nanos === undefined || nanos < 0n)
    throw new InvalidArgumentError('must be a duration, like 90s or 24h');
  return nanos;
}

const documentOf = ({ name, since, ...orphan }: Orphan): object => ({
  ...orphan,
  key: name,
  ...(since !== undefined && { at: since }),
});

function print(out: Output, report: OrphanReport): void {
  const { orphans: found, young } = report;
  if (out.json) {
    out.document({ ...report, orphans: found.map(documentOf) });
    return;
  }
  out.rows<Orphan>(found, [
    { title: 'REASON', value: (o) => o.reason },
    { title: 'KIND', value: (o) => o.kind },
    { title: 'NAMESPACE', value: (o) => o.namespace || '-' },
    { title: 'NAME', value: (o) => o.name, isName: true },
    { title: 'BYTES', value: (o) => bytes(o.bytes), right: true },
    { title: 'SINCE', value: (o) => (o.since === undefined ? '-' : shortTime(o.since)) },
  ]);
  if (out.isRowsOnly) return;
  out.line(`${found.length} orphans, ${bytes(report.bytes)}; nothing was removed`);
  if (young > 0) out.line(`${young} more are younger than --older-than and may still be created`);
  for (const [command, these] of byCommand(found)) {
    out.line();
    const { kind, name, reason } = present(these[0], 'an orphan');
    const which = these.length === 1 ? `${kind} ${name}` : `${these.length} of them`;
    out.line(printable(`to remove ${which} (${reason}):`));
    out.line(printable(`  ${command}`));
  }
}

/** A collection removes many at once. */
function byCommand(found: readonly Orphan[]): Map<string, Orphan[]> {
  const commands = new Map<string, Orphan[]>();
  for (const orphan of found) {
    const { command } = orphan;
    if (command === undefined) continue;
    const these = commands.get(command);
    if (these === undefined) commands.set(command, [orphan]);
    else these.push(orphan);
  }
  return commands;
}
