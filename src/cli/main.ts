#!/usr/bin/env node
/** The `ebbtide` command: global options and the list of verbs; each verb is a file in verbs/. */
import { createRequire } from 'node:module';
import { Command, CommanderError } from 'commander';
import { addEtcdOptions } from './etcd-options.js';
import { exitCodes } from './exit-codes.js';
import { defaultRoot, report } from './runner.js';
import { containers } from './verbs/containers.js';
import { content } from './verbs/content.js';
import { demo } from './verbs/demo.js';
import { doctor } from './verbs/doctor.js';
import { du } from './verbs/du.js';
import { exportVerb } from './verbs/export.js';
import { gc } from './verbs/gc.js';
import { images } from './verbs/images.js';
import { importVerb } from './verbs/import.js';
import { leases } from './verbs/leases.js';
import { namespaces } from './verbs/namespaces.js';
import { serve } from './verbs/serve.js';
import { snapshots } from './verbs/snapshots.js';
import { synth } from './verbs/synth.js';
import { why } from './verbs/why.js';

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
  .exitOverride();

addEtcdOptions(program);

for (const register of [
  doctor,
  demo,
  importVerb,
  exportVerb,
  images,
  content,
  snapshots,
  containers,
  leases,
  namespaces,
  gc,
  why,
  du,
  synth,
  serve,
]) {
  register(program);
}

// A reader that goes away (`| head`) ends the output, not the work.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
});

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : exitCodes.InvalidArgument;
  } else {
    process.exitCode = report(error);
  }
}
