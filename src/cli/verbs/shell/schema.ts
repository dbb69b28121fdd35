/** `ebbtide schema [VERB]`: prints the JSON schema of what verbs print with `--json`. */
import type { Command } from 'commander';
import { verb } from '../../runner.js';
import { readSchema, schemaOf } from '../../schema.js';

export function schema(program: Command): void {
  program
    .command('schema [verb...]')
    .description(
      'print the JSON schema of the --json output of all verbs, of one verb, or of errors ("error")',
    )
    .action(
      verb(async ({ out }, words) =>
        out.document(words.length === 0 ? readSchema() : schemaOf(words.join(' '))),
      ),
    );
}
