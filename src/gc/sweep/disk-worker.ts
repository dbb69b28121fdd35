/**
 * The worker thread of the disk pool: deletes trees with synchronous calls, because the thread has nothing else
 * to do. It opens no store, so ending it can leave nothing locked.
 */
import type { RemovalReport } from '../../backends/contract.js';
import { addReport, emptyReport, removeTreeSync } from '../../backends/remove-tree.js';

/** Task of the pool: deletes these trees, one after another. */
export default function removeTrees(paths: string[]): RemovalReport {
  const report = emptyReport();
  for (const path of paths) addReport(report, removeTreeSync(path));
  return report;
}
