/** `ebbtide check`: compares the store with the disk, in this process or in a daemon. */
import type { Command } from 'commander';
import type { CheckOptions } from '../../../check/check.js';
import type { CheckReport, Finding } from '../../../check/findings.js';
import { exitCodes } from '../../exit-codes.js';
import { bytes, type Output, printable } from '../../output/output.js';
import { type StoreEnv, storeVerb } from '../../runner.js';

interface Options {
  hash?: boolean;
  repair?: boolean;
  graph?: boolean;
}

/** The code of operations that damage prevents. */
export const DAMAGED_EXIT_CODE = exitCodes.FailedPrecondition;

export function check(program: Command): void {
  program
    .command('check')
    .description('compare blobs, ingests and snapshots with the disk; exits with 5 on damage')
    .option('--hash', 'read every blob and compare its digest')
    .option('--repair', 'move damaged blobs away, so that the next import writes them')
    .option(
      '--graph',
      'compare the graph with the records in a daemon too; its other clients wait during that',
    )
    .action(
      storeVerb<Options>(
        // A daemon leaves the graph out unless it is asked for.
        (env, _args, { hash, repair, graph }) =>
          checkAndPrint(env, { hash, repair, ...(graph && { graph }) }),
        ({ repair }) => ({ allNamespaces: true, reads: repair !== true }),
      ),
    );
}

/** For `check` and `verify`. */
export async function checkAndPrint(env: StoreEnv, options: CheckOptions): Promise<void> {
  const report = await run(env, options);
  env.out.object(report, () => summary(env.out, report));
  if (!report.sound) process.exitCode = DAMAGED_EXIT_CODE;
  if (env.db.isReadOnly && report.findings.length > 0)
    env.out.notice('these may include changes by another process during the run: run it again');
}

async function run({ db, out, signal, progress }: StoreEnv, options: CheckOptions): Promise<CheckReport> {
  try {
    return await db.check(
      { signal },
      {
        ...options,
        onFinding: (finding) => {
          progress.end();
          if (!out.json) line(out, finding);
        },
        onProgress: (phase, done) =>
          progress.count(`checking ${phase}`, done, {
            unit: options.hash && phase === 'files' ? 'bytes' : 'items',
          }),
      },
    );
  } finally {
    progress.end();
  }
}

function line(out: Output, finding: Finding): void {
  const { kind, severity, object, namespace, snapshotter, path, expected, found, remedy, repaired } = finding;
  const where = [namespace, snapshotter].filter((part) => part !== undefined).join('/');
  out.line(printable(`${severity}  ${kind}  ${where === '' ? '' : `${where}  `}${object}`));
  if (path) out.line(printable(`  path      ${path}`));
  if (expected !== undefined) out.line(printable(`  expected  ${expected}`));
  if (found !== undefined) out.line(printable(`  found     ${found}`));
  out.line(
    printable(repaired === undefined ? `  remedy    ${remedy}` : `  repaired  ${repaired}; ${remedy}`),
  );
}

function summary(
  out: Output,
  { sound, damaged, leftovers, repaired, checked, elsewhere, graph }: CheckReport,
): void {
  const hashed = checked.hashedBytes > 0 ? `, ${bytes(checked.hashedBytes)} read` : '';
  out.line(
    `checked   ${checked.blobs} blobs in ${checked.files} files${hashed}, ${checked.ingests} ingests, ${checked.snapshots} snapshots`,
  );
  if (checked.layers > 0)
    out.line(`compared  ${checked.layerEntries} entries of ${checked.layers} unpacked layers`);
  if (checked.earlier > 0) out.line(`earlier   ${checked.earlier} of these files and layers`);
  out.line(`graph     ${graph}`);
  if (elsewhere > 0) out.line(`elsewhere ${elsewhere} records of objects on other hosts`);
  if (leftovers > 0) out.line(`leftovers ${leftovers}`);
  if (repaired > 0) out.line(`repaired  ${repaired}`);
  out.line(sound ? 'sound' : `damaged   ${damaged}`);
}
