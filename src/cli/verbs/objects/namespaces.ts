/** `ebbtide namespaces ls|create|label|rm` */
import type { Command } from 'commander';
import { labelText } from '../../output/output.js';
import { collectLabel, labelArguments, listed, readVerb, storeVerb } from '../../runner.js';

export function namespaces(program: Command): void {
  const command = program.command('namespaces').description('namespaces of the store');

  listed(command.command('ls'))
    .description('list namespaces')
    .action(
      readVerb(
        async ({ db, ctx, out }) => {
          const rows = [];
          for (const name of await db.namespaces.list(ctx)) {
            rows.push({ name, labels: await db.namespaces.labels(ctx, name) });
          }
          out.rows(rows, [
            { title: 'NAME', value: (n) => n.name },
            { title: 'LABELS', minor: true, value: (n) => labelText(n.labels) },
          ]);
        },
        { allNamespaces: true },
      ),
    );

  command
    .command('create <name>')
    .description('create a namespace (a write into one creates it too)')
    .option('--label <key=value>', 'label (repeatable)', collectLabel)
    .action(
      storeVerb<{ label?: Record<string, string> }, [name: string]>(
        async ({ db, ctx, out }, [name], { label }) => {
          await db.namespaces.create(ctx, name, label ?? {});
          out.object({ name, labels: label ?? {} }, () => out.line(name));
        },
        { allNamespaces: true },
      ),
    );

  command
    .command('label <name> <labels...>')
    .description('set labels (key=value; key= removes)')
    .action(
      storeVerb<object, [name: string, ...labels: string[]]>(
        async ({ db, ctx, out }, [name, ...rest]) => {
          for (const [k, v] of Object.entries(labelArguments(rest)))
            await db.namespaces.setLabel(ctx, name, k, v);
          const labels = await db.namespaces.labels(ctx, name);
          out.object({ name, labels }, () => out.line(labelText(labels)));
        },
        { allNamespaces: true },
      ),
    );

  command
    .command('rm <name...>')
    .description('delete empty namespaces')
    .action(
      storeVerb(
        async ({ db, ctx, out }, names) => {
          for (const name of names) await db.namespaces.delete(ctx, name);
          out.object({ removed: names }, () => {
            for (const name of names) out.line(name);
          });
        },
        { allNamespaces: true },
      ),
    );
}
