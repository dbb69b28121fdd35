/**
 * `ebbtide heal`: damaged layers unpacked again. In our own root they take the place of the damaged ones; of another program's
 * root (`--containerd-root`) they go into a directory, with what to type to put them in place.
 */
import type { Command } from 'commander';
import { invalidArgument } from '../../../errors.js';
import type { ForeignStore } from '../../foreign-store.js';
import { printable } from '../../output/output.js';
import { type StoreEnv, storeVerb } from '../../runner.js';
import { checkAndPrint } from '../store/check.js';

interface Options {
  output?: string;
  containerdRoot?: string;
}

export function heal(program: Command): void {
  program
    .command('heal')
    .description(
      "unpack the layers that verify finds damaged again, in their place, and move damaged blobs away, so that the next import writes them. Of another program's root (--containerd-root): into a directory, and say what to type to put them in place",
    )
    .option(
      '-o, --output <directory>',
      "of another program's root: where the layers go, a directory that is not there",
    )
    .action(
      storeVerb<Options>(
        async (env, _args, { output }) => {
          const foreign = await import('../../foreign-store.js');
          if (env.db instanceof foreign.ForeignStore) await healForeign(env, env.db.parts, output ?? '');
          else await checkAndPrint(env, { layers: true, repair: true, graph: false });
        },
        ({ containerdRoot, output }) => {
          if (containerdRoot === undefined && output !== undefined)
            throw invalidArgument('layers of a store of ebbtide are healed in their place', {
              remedy: "leave -o out, or name another program's root with --containerd-root",
            });
          if (containerdRoot !== undefined && output === undefined)
            throw invalidArgument('where are the layers to go?', {
              remedy: 'name a directory that is not there with -o',
            });
          return { allNamespaces: true, reads: containerdRoot !== undefined };
        },
      ),
    );
}

async function healForeign(
  { out, signal, progress }: StoreEnv,
  parts: ForeignStore['parts'],
  output: string,
): Promise<void> {
  const { healLayers } = await import('../../../any-host/heal.js');
  const healed = await healLayers(parts, output, {
    signal,
    progress: (done) => progress.count('comparing layers', done, { unit: 'items' }),
  });
  progress.end();
  if (out.json) {
    out.document(healed);
    return;
  }
  for (const { snapshotter, key, namespace, path, healed: made, error, command } of healed) {
    out.line(printable(`${namespace}/${snapshotter}  ${key}`));
    out.line(printable(`  damaged   ${path}`));
    if (made !== undefined) out.line(printable(`  healed    ${made}`));
    if (error !== undefined) out.line(printable(`  not healed: ${error}`));
    if (command !== undefined) out.line(printable(`  ${command}`));
  }
  if (healed.length === 0) out.line('no layer is damaged');
  else out.line('the owner, and what uses these snapshots, is to be stopped before anything is put in place');
}
