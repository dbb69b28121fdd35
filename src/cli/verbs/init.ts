/** `ebbtide init`: makes the store, or joins a tree over etcd, before anything is put into it. */
import type { Command } from 'commander';
import { storeVerb } from '../runner.js';

export function init(program: Command): void {
  program
    .command('init')
    .description('make an empty store at the root; with --etcd, let this host join the tree')
    .action(
      storeVerb(async ({ out, options: { root } }) => out.object({ root }, () => out.line(root)), {
        creates: true,
        allNamespaces: true,
      }),
    );
}
