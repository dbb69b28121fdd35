/** `ebbtide history`: the collections of the past, and what they removed. */
import { type Command, InvalidArgumentError } from 'commander';
import type { CollectionRecord, RemovedName } from '../../../gc/report/collection-record.js';
import { bytes, duration, type Output } from '../../output/output.js';
import { readVerb } from '../../runner.js';
import { counts } from './gc.js';

interface Options {
  limit: number;
  names?: boolean;
}

const SHOWN = 20;

export function history(program: Command): void {
  program
    .command('history')
    .description('list the collections of the past, the newest first')
    .option('--limit <n>', 'at most this many', limit, SHOWN)
    .option('--names', 'list what they removed, as far as names were kept')
    .action(
      readVerb<Options>(
        async ({ db, out }, _args, options) => {
          const records = await db.history({ limit: options.limit });
          out.object(records, () => (options.names ? printNames(out, records) : printRuns(out, records)));
        },
        { allNamespaces: true },
      ),
    );
}

function limit(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < 1)
    throw new InvalidArgumentError('must be a whole number above 0');
  return value;
}

/** To the second. */
const startOf = ({ startedAt }: CollectionRecord): string => startedAt.replace(/\.\d+/, '');

function printRuns(out: Output, records: readonly CollectionRecord[]): void {
  out.table(records, [
    { title: 'STARTED', whole: true, value: startOf },
    { title: 'OUTCOME', value: ({ outcome, planned }) => (planned ? `${outcome}, of a plan` : outcome) },
    { title: 'REMOVED', value: removedText },
    { title: 'FREED', whole: true, right: true, value: ({ bytesFreed }) => bytes(bytesFreed) },
    { title: 'TIME', minor: true, whole: true, right: true, value: ({ durationMs }) => duration(durationMs) },
  ]);
  for (const record of records)
    if (record.error !== undefined) out.line(`${startOf(record)}  ${record.error}`);
}

function removedText({ removed, orphans }: CollectionRecord): string {
  const found = counts(orphans);
  return found === 'nothing' ? counts(removed) : `${counts(removed)}; without a record ${found}`;
}

function printNames(out: Output, records: readonly CollectionRecord[]): void {
  const rows = records.flatMap((record) => record.names.map((name) => ({ record, name })));
  out.table<{ record: CollectionRecord; name: RemovedName }>(rows, [
    { title: 'STARTED', whole: true, value: ({ record }) => startOf(record) },
    { title: 'KIND', value: ({ name }) => name.kind },
    { title: 'NAMESPACE', value: ({ name }) => (name.orphan ? '(no record)' : name.namespace) },
    { title: 'OBJECT', value: ({ name }) => name.key },
  ]);
  for (const record of records)
    if (record.unnamed > 0)
      out.line(`${startOf(record)}  and ${record.unnamed} more, whose names were not kept`);
}
