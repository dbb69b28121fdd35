/** `ebbtide verify`: content and what is in committed snapshots, against digests and layers; of our own root or another program's. */
import type { Command } from 'commander';
import { storeVerb } from '../runner.js';
import { checkAndPrint } from './check.js';

interface Options {
  hash?: boolean;
}

export function verify(program: Command): void {
  program
    .command('verify')
    .description(
      'as check, and compare what is in committed snapshots with the archives of their layers: names, types, sizes, modes; finds the empty files of an unclean stop. Exits with 5 when there is damage',
    )
    .option('--hash', 'read every blob and compare its digest')
    .action(
      storeVerb<Options>((env, _args, { hash }) => checkAndPrint(env, { hash, layers: true, graph: false }), {
        allNamespaces: true,
        reads: true,
      }),
    );
}
