/**
 * The engine contract as tests: `describeEngine` runs them over any engine. Exported as `ebbtide/testing`, so that an
 * engine made elsewhere can be held to the same contract. Runs under node:test.
 */
import { describe, it } from 'node:test';
import { graphs } from './suite/graph.js';
import { reads } from './suite/reads.js';
import { services } from './suite/services.js';
import { type EngineUnderTest, type OpenEngine, suiteIndexer } from './suite/support.js';
import { transactions } from './suite/transactions.js';
import { verifyEachCommit } from './suite/verified.js';

export { type EngineUnderTest, type OpenEngine, suiteIndexer } from './suite/support.js';
export { verifyEachCommit } from './suite/verified.js';

/**
 * Registers the whole suite; `open` returns an empty engine each time, with the given indexer. With `verify` (default true) the
 * graph is compared with the records after each transaction.
 */
export function describeEngine(
  name: string,
  open: OpenEngine,
  { verify = true }: { verify?: boolean } = {},
): void {
  describe(`engine contract: ${name}`, () => {
    for (const [group, tests] of Object.entries({ reads, transactions, graphs, services })) {
      describe(group, () => {
        for (const [title, test] of Object.entries(tests)) {
          it(title, async (t) => {
            const subject = await open(suiteIndexer);
            if (verify) verified(subject);
            try {
              await test(subject, t);
            } finally {
              await subject.dispose();
            }
          });
        }
      });
    }
  });
}

function verified(subject: EngineUnderTest): void {
  verifyEachCommit(subject.engine);
  const { reopen } = subject;
  if (reopen !== undefined) subject.reopen = async () => verifyEachCommit(await reopen());
}
