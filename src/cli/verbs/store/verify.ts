/** `ebbtide verify`: content and what is in committed snapshots, against digests and layers; of our own root or another program's. */
import type { Command } from 'commander';
import type { CheckOptions } from '../../../check/check.js';
import { type StoreEnv, storeVerb } from '../../runner.js';
import { SoundItemsFile } from '../../sound-items.js';
import type { Store } from '../../store.js';
import { checkAndPrint } from './check.js';

interface Options {
  hash?: boolean;
  resume?: string;
}

export function verify(program: Command): void {
  program
    .command('verify')
    .description(
      'as check, and compare what is in committed snapshots with the archives of their layers: names, types, sizes, modes; finds the empty files of an unclean stop. Exits with 5 when there is damage',
    )
    .option('--hash', 'read every blob and compare its digest')
    .option(
      '--resume <file>',
      'keep in this file what was found sound, and go on there after an interruption; removed at the end',
    )
    .action(
      storeVerb<Options>(
        async (env, _args, { hash, resume }) => {
          const options = { hash, layers: true, graph: false };
          if (resume === undefined) await checkAndPrint(env, options);
          else await goOn(env, options, resume);
        },
        { allNamespaces: true, reads: true },
      ),
    );
}

async function goOn(env: StoreEnv, options: CheckOptions, path: string): Promise<void> {
  const { root, containerdRoot } = env.options;
  if (containerdRoot !== undefined) await checkOutside(env.db, path);
  using sound = SoundItemsFile.open(path, containerdRoot ?? root);
  if (sound.size > 0) env.out.notice(`${sound.size} files and layers were found sound before (${path})`);
  await checkAndPrint(env, { ...options, sound });
  sound.remove();
}

/** Nothing is made in another program's root. */
async function checkOutside(db: Store, path: string): Promise<void> {
  const [{ ForeignStore }, { outsideOf }] = await Promise.all([
    import('../../foreign-store.js'),
    import('../../../any-host/compact.js'),
  ]);
  if (db instanceof ForeignStore) await outsideOf(db.parts.places, path);
}
