#!/usr/bin/env -S node --v8-pool-size=1
/**
 * The `ebbtide` command: global options and the list of verbs; each verb is a file in verbs/, loaded when it is meant.
 *
 * Node's own threads, which compile and help to collect garbage, are four whatever the processors; on a host with two they
 * keep commits waiting (docs/benchmarks.md).
 */
import { createRequire } from 'node:module';
import { Command, CommanderError } from 'commander';
import { addEtcdOptions } from './etcd-options.js';
import { exitCodes } from './exit-codes.js';
import { defaultRoot, report, standardOutput } from './runner.js';

const { version } = createRequire(import.meta.url)('../../../package.json') as { version: string };

const program = new Command('ebbtide')
  .description('Metadata store and garbage collector of a container host')
  .version(version)
  .option('--root <dir>', 'directory of the store (EBBTIDE_ROOT)', defaultRoot())
  .option(
    '-n, --namespace <name>',
    'namespace to work in (EBBTIDE_NAMESPACE)',
    process.env.EBBTIDE_NAMESPACE ?? 'default',
  )
  .option('--address <socket>', 'work through the daemon at this socket (EBBTIDE_ADDRESS)')
  .option('--json', 'print JSON')
  .enablePositionalOptions(false)
  .showHelpAfterError('(ebbtide --help shows the verbs)')
  .configureOutput({ writeOut: (text) => standardOutput.write(text) })
  .exitOverride();

addEtcdOptions(program);

/** In the order of the help. */
const verbs: Readonly<Record<string, () => Promise<(program: Command) => void>>> = {
  doctor: async () => (await import('./verbs/doctor.js')).doctor,
  check: async () => (await import('./verbs/check.js')).check,
  demo: async () => (await import('./verbs/demo.js')).demo,
  init: async () => (await import('./verbs/init.js')).init,
  import: async () => (await import('./verbs/import.js')).importVerb,
  export: async () => (await import('./verbs/export.js')).exportVerb,
  images: async () => (await import('./verbs/images.js')).images,
  content: async () => (await import('./verbs/content.js')).content,
  snapshots: async () => (await import('./verbs/snapshots.js')).snapshots,
  containers: async () => (await import('./verbs/containers.js')).containers,
  leases: async () => (await import('./verbs/leases.js')).leases,
  namespaces: async () => (await import('./verbs/namespaces.js')).namespaces,
  hosts: async () => (await import('./verbs/hosts.js')).hosts,
  gc: async () => (await import('./verbs/gc.js')).gc,
  why: async () => (await import('./verbs/why.js')).why,
  du: async () => (await import('./verbs/du.js')).du,
  synth: async () => (await import('./verbs/synth.js')).synth,
  serve: async () => (await import('./verbs/serve.js')).serve,
};

/**
 * The verbs that the command line may be about: every word that is one, all of them when help is wanted or none is named.
 * What the others need is not loaded, which is a good part of the time of a short command and of a daemon's start.
 */
function verbsIn(words: readonly string[]): string[] {
  const named = Object.keys(verbs).filter((name) => words.includes(name));
  const wantsHelp = ['help', '--help', '-h'].some((word) => words.includes(word));
  return named.length === 0 || wantsHelp ? Object.keys(verbs) : named;
}

for (const name of verbsIn(process.argv.slice(2))) (await verbs[name]!())(program);

// A terminal that goes away ends the output, not the work.
process.stderr.on('error', () => undefined);

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : exitCodes.InvalidArgument;
  } else {
    process.exitCode = report(error);
  }
}
