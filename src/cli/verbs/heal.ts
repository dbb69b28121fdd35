/** `ebbtide --containerd-root DIR heal -o DIRECTORY`: damaged layers unpacked again, and what to type to put them in place. */
import type { Command } from 'commander';
import { invalidArgument } from '../../errors.js';
import { printable } from '../output/output.js';
import { storeVerb } from '../runner.js';

interface Options {
  output?: string;
  containerdRoot?: string;
}

export function heal(program: Command): void {
  program
    .command('heal')
    .description(
      "of another program's root (--containerd-root): unpack the layers that verify finds damaged again, into a directory, and say what to type to put them in place",
    )
    .option('-o, --output <directory>', 'where the layers go: a directory that is not there')
    .action(
      storeVerb<Options>(
        async ({ db, out, signal, progress }, _args, { output = '' }) => {
          const [{ ForeignStore }, { healLayers }] = await Promise.all([
            import('../foreign-store.js'),
            import('../../any-host/heal.js'),
          ]);
          if (!(db instanceof ForeignStore)) throw notThere();
          const healed = await healLayers(db.parts, output, {
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
          else
            out.line(
              'the owner, and what uses these snapshots, is to be stopped before anything is put in place',
            );
        },
        ({ containerdRoot, output }) => {
          if (containerdRoot === undefined) throw notThere();
          if (output === undefined)
            throw invalidArgument('where are the layers to go?', {
              remedy: 'name a directory that is not there with -o',
            });
          return { allNamespaces: true, reads: true };
        },
      ),
    );
}

const notThere = () =>
  invalidArgument("heal is for another program's root", {
    remedy:
      'name one with --containerd-root; in a store of ebbtide remove the snapshots and unpack the image again',
  });
