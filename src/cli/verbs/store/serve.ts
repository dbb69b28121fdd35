/** `ebbtide serve`: the daemon that containerd's own clients can talk to. Runs until SIGTERM or SIGINT. */
import { existsSync } from 'node:fs';
import { setFlagsFromString } from 'node:v8';
import { type Command, Option } from 'commander';
import { failedPrecondition } from '../../../errors.js';
import { layout } from '../../../open.js';
import type { DaemonOptions, GivenOptions } from '../../../server/config.js';
import { type EtcdOptions, etcdConfig } from '../../etcd-options.js';
import { verb } from '../../runner.js';

interface Options extends GivenOptions, EtcdOptions {
  root: string;
  config?: string;
}

export function serve(program: Command): void {
  program
    .command('serve')
    .description("serve the store on a unix socket, to containerd's clients and to this command")
    .optionsGroup('Addresses:')
    .option('--proxy-address <socket>', 'second socket, for the proxy plugins of a containerd')
    .option('--metrics <host:port>', 'serve Prometheus metrics and /healthz over HTTP')
    .optionsGroup('Service:')
    .option('--config <file>', 'JSON file with the same options and the limits')
    .addOption(
      new Option('--gc <when>', 'when to collect (default: scheduled)').choices([
        'scheduled',
        'immediate',
        'on-request',
      ]),
    )
    .addOption(
      new Option(
        '--policy <name>',
        'which namespaces may use content by its digest (default: shared)',
      ).choices(['shared', 'isolated']),
    )
    .option('--policy-file <file>', 'JSON file: what to retire, by schedule (see `ebbtide policy show`)')
    .option('--transfer', 'serve registries, archives and tags to `ctr` 2.x without --local')
    .option('--mounts', 'activate mounts for clients of containerd 2.2 and later')
    .option('--snapshotters <names>', 'comma-separated (default: native,overlayfs)')
    .addOption(
      new Option('--log-level <level>', 'lowest level that is logged (default: info)').choices([
        'trace',
        'debug',
        'info',
        'warn',
        'error',
        'fatal',
      ]),
    )
    .action(
      verb<Options>(async ({ out, signal, onHangup, options: { readOnly } }, _args, options) => {
        // By itself a heap may grow fourfold before all of it is looked through: with calls that come and go by the ten
        // thousand the process had twice the memory, most of it garbage.
        setFlagsFromString('--heap-growing-percent=100');
        // Loaded here: no other verb needs the server.
        const [{ daemonOptions, readConfig }, { Daemon }, { activatedSockets }] = await Promise.all([
          import('../../../server/config.js'),
          import('../../../server/daemon.js'),
          import('../../../server/systemd/activation.js'),
        ]);
        const { root } = options;
        if (readOnly)
          throw failedPrecondition('a daemon writes to its store', { remedy: 'leave --read-only out' });
        const isNew = !hasStore(root);
        let daemon: Awaited<ReturnType<typeof Daemon.start>> | undefined;
        const sockets = activatedSockets();
        const read = async (): Promise<DaemonOptions> => ({
          ...daemonOptions(root, await readConfig(options.config), { ...options }),
          etcd: etcdConfig(options),
          sockets,
        });
        onHangup(() => void daemon?.reload(read));
        daemon = await Daemon.start(await read());
        if (isNew) out.notice(`created a store at ${root}`);
        if (!signal.aborted) {
          await new Promise((done) => signal.addEventListener('abort', done, { once: true }));
        }
        await daemon.stop();
      }),
    );
}

const hasStore = (root: string): boolean =>
  existsSync(layout.database(root)) || existsSync(layout.mirror(root));
