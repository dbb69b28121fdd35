/** What `backup` and `restore` print alike. */
import type { OnTransferProgress, TransferReport } from '../../backup/transfer.js';
import { type Output, printable } from './output.js';
import type { Progress } from './progress.js';

const PROBLEMS_SHOWN = 20;

export const showProgress =
  (progress: Progress): OnTransferProgress =>
  (phase, done, total) =>
    progress.count(`copying ${phase}`, done, { total, unit: phase === 'blobs' ? 'bytes' : 'items' });

/** Lists what is missing. */
export function problemLines(out: Output, { problems, problemList }: TransferReport): void {
  if (problems === 0) return;
  out.line(`missing    ${problems}`);
  for (const { kind, object, found } of problemList.slice(0, PROBLEMS_SHOWN))
    out.line(printable(`  ${kind}  ${object}  ${found}`));
  if (problems > PROBLEMS_SHOWN) out.line(`  and ${problems - PROBLEMS_SHOWN} more`);
}
