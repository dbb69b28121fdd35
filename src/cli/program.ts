/**
 * The command's tree: global options and the verbs. Each verb is a file in verbs/, by the groups of the help, loaded when it is needed.
 */
import { createRequire } from 'node:module';
import { Command, Option } from 'commander';
import { addEtcdOptions } from './etcd-options.js';
import { addExamples } from './examples.js';
import { defaultRoot, standardOutput } from './runner.js';

type Register = (program: Command) => void;

/** In the order of the help. */
const verbs: Readonly<Record<string, Readonly<Record<string, () => Promise<Register>>>>> = {
  'The store:': {
    init: async () => (await import('./verbs/store/init.js')).init,
    serve: async () => (await import('./verbs/store/serve.js')).serve,
    doctor: async () => (await import('./verbs/store/doctor.js')).doctor,
    check: async () => (await import('./verbs/store/check.js')).check,
    verify: async () => (await import('./verbs/store/verify.js')).verify,
    backup: async () => (await import('./verbs/store/backup.js')).backup,
    restore: async () => (await import('./verbs/store/restore.js')).restore,
    compact: async () => (await import('./verbs/store/compact.js')).compact,
    hosts: async () => (await import('./verbs/store/hosts.js')).hosts,
  },
  'Objects:': {
    import: async () => (await import('./verbs/objects/import.js')).importVerb,
    export: async () => (await import('./verbs/objects/export.js')).exportVerb,
    images: async () => (await import('./verbs/objects/images.js')).images,
    content: async () => (await import('./verbs/objects/content.js')).content,
    snapshots: async () => (await import('./verbs/objects/snapshots.js')).snapshots,
    containers: async () => (await import('./verbs/objects/containers.js')).containers,
    leases: async () => (await import('./verbs/objects/leases.js')).leases,
    namespaces: async () => (await import('./verbs/objects/namespaces.js')).namespaces,
  },
  'Disk space:': {
    du: async () => (await import('./verbs/disk/du.js')).du,
    why: async () => (await import('./verbs/disk/why.js')).why,
    view: async () => (await import('./verbs/disk/view.js')).view,
    'export-graph': async () => (await import('./verbs/disk/export-graph.js')).exportGraph,
    gc: async () => (await import('./verbs/disk/gc.js')).gc,
    policy: async () => (await import('./verbs/disk/policy.js')).policy,
    history: async () => (await import('./verbs/disk/history.js')).history,
    orphans: async () => (await import('./verbs/disk/orphans.js')).orphans,
    heal: async () => (await import('./verbs/disk/heal.js')).heal,
    salvage: async () => (await import('./verbs/disk/salvage.js')).salvage,
  },
  'Trying it, and the shell:': {
    demo: async () => (await import('./verbs/shell/demo.js')).demo,
    synth: async () => (await import('./verbs/shell/synth.js')).synth,
    schema: async () => (await import('./verbs/shell/schema.js')).schema,
    completion: async () => (await import('./verbs/shell/completion.js')).completion,
  },
};

/** Minimum width of the help's right column, and the width of its lines if the output is not a terminal. */
const HELP_WIDTH_LEAST = 20;
const HELP_WIDTH = 80;

/** Words that concern all verbs. */
const ABOUT_ALL: readonly string[] = ['help', '--help', '-h', 'completion'];

/**
 * Loads the verbs that the command line may need: every word that is the name of a verb, or all of them if a
 * word concerns all or no verb is named. Loading the others would be a good part of the time of a short
 * command and of a daemon's start.
 */
export async function createProgram(words: readonly string[] = []): Promise<Command> {
  const { version } = createRequire(import.meta.url)('../../../package.json') as { version: string };
  const program = new Command('ebbtide')
    .description('Metadata store and garbage collector of a container host')
    .version(version)
    .enablePositionalOptions(false)
    .showHelpAfterError('(ebbtide --help shows the verbs)')
    // Also on narrow terminals.
    .configureHelp({ minWidthToWrap: HELP_WIDTH_LEAST })
    .configureOutput({
      getOutHelpWidth: () => standardOutput.columns ?? HELP_WIDTH,
      writeOut: (text) => standardOutput.write(text),
      // With --json errors are JSON too, and main.ts writes them.
      ...(words.includes('--json') && { writeErr: () => undefined }),
    })
    .exitOverride();
  addStoreOptions(program.optionsGroup('Store options, for every verb:'));
  addEtcdOptions(program.optionsGroup('etcd options, for every verb:'));
  const names = Object.values(verbs).flatMap((group) => Object.keys(group));
  const all = ABOUT_ALL.some((word) => words.includes(word)) || !names.some((name) => words.includes(name));
  for (const [group, members] of Object.entries(verbs)) {
    program.commandsGroup(group);
    for (const [name, load] of Object.entries(members))
      if (all || words.includes(name)) (await load())(program);
  }
  addExamples(program);
  return program;
}

function addStoreOptions(program: Command): void {
  program
    .addOption(
      new Option('--root <dir>', 'directory of the store (EBBTIDE_ROOT)').default(
        defaultRoot(),
        '/var/lib/ebbtide for root, ~/.local/share/ebbtide for others',
      ),
    )
    .addOption(
      new Option('-n, --namespace <name>', 'namespace to work in (EBBTIDE_NAMESPACE)').default(
        process.env.EBBTIDE_NAMESPACE ?? 'default',
        'default',
      ),
    )
    .addOption(
      new Option(
        '--containerd-root <dir>',
        "look into another program's root instead (containerd, Docker, BuildKit): nothing is written there",
      ).conflicts(['address', 'root']),
    )
    .option('--address <socket>', 'work through the daemon at this socket (EBBTIDE_ADDRESS)')
    .option('--read-only', 'read the root without writing to it, also while another process has it open')
    .addOption(
      new Option('--core <carrier>', 'carrier of the graph core (EBBTIDE_CORE)').choices(['native', 'wasm']),
    )
    .option('--json', 'print JSON');
}
