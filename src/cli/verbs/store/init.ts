/** `ebbtide init`: creates an empty store, or joins a tree in etcd. */
import type { Command } from 'commander';
import { storeVerb } from '../../runner.js';

export function init(program: Command): void {
  program
    .command('init')
    .description('create an empty store at the root; with --etcd, join this host to the tree')
    .action(
      storeVerb(async ({ out, options: { root } }) => out.object({ root }, () => out.line(root)), {
        creates: true,
        allNamespaces: true,
      }),
    );
}
