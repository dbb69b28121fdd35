/**
 * A copy of this machine that systemd boots: its own processes, mounts, network and host name, over an overlay of `/`, so
 * that a package can be installed and its units started without touching the machine. REQUIRES: root, Debian's systemd.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const PATH = 'PATH=/usr/sbin:/usr/bin:/sbin:/bin';
const BOOT_MS_MAX = 120_000;

/** What a container manager sets up before it starts an init (systemd's container interface), and then becomes it. */
const init = (root: string): string => `
set -e
mount --make-rprivate /
mount -t proc proc ${root}/proc
mount -t sysfs -o ro sysfs ${root}/sys
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
  mount -t cgroup2 cgroup ${root}/sys/fs/cgroup
else
  mount -t tmpfs tmpfs ${root}/sys/fs/cgroup
  mkdir ${root}/sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd cgroup ${root}/sys/fs/cgroup/systemd
fi
mount -t tmpfs tmpfs ${root}/dev
for name in null zero full random urandom tty; do touch ${root}/dev/$name; mount --bind /dev/$name ${root}/dev/$name; done
mkdir ${root}/dev/pts ${root}/dev/shm
mount -t tmpfs tmpfs ${root}/run
mount -t tmpfs tmpfs ${root}/tmp
exec chroot ${root} env -i container=ebbtide-test ${PATH} /lib/systemd/systemd --unit=multi-user.target --show-status=false
`;

export interface Ran {
  code: number | null;
  output: string;
}

export class Machine implements AsyncDisposable {
  readonly root: string;
  readonly #directory: string;
  readonly #mounts: string[] = [];
  #child: ChildProcess | undefined;
  #init: string | undefined;

  constructor(directory: string) {
    this.#directory = directory;
    mkdirSync(directory, { recursive: true });
    this.#mount(['-t', 'tmpfs', '-o', 'mode=755', 'tmpfs'], directory);
    const [upper, work, root] = ['upper', 'work', 'root'].map((name) => join(directory, name));
    for (const path of [upper, work, root]) mkdirSync(path!);
    this.root = root!;
    this.#mount(
      ['-t', 'overlay', '-o', `lowerdir=/,upperdir=${upper},workdir=${work}`, 'overlay'],
      this.root,
    );
    // Overlays, and whiteouts, need something else than an overlay below.
    for (const path of ['var/lib/ebbtide', 'var/backups']) {
      mkdirSync(join(this.root, path), { recursive: true, mode: 0o711 });
      this.#mount(['-t', 'tmpfs', '-o', 'mode=711', 'tmpfs'], join(this.root, path));
    }
    // An image of a container may forbid packages to start and stop services.
    rmSync(join(this.root, 'usr/sbin/policy-rc.d'), { force: true });
  }

  /** A command in the machine's files, before it has booted. */
  chroot(...command: string[]): Ran {
    return ran('chroot', [this.root, ...command]);
  }

  /** A command in the booted machine. */
  in(...command: string[]): Ran {
    return ran('nsenter', [
      '-t',
      this.#pid(),
      '-m',
      '-p',
      '-u',
      '-n',
      '-r',
      '-w',
      'env',
      '-i',
      PATH,
      ...command,
    ]);
  }

  /** A process of this machine, with its files, on the other's network. */
  spawnOnNetwork(command: string, args: readonly string[]): ChildProcess {
    return spawn('nsenter', ['-t', this.#pid(), '-n', command, ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  }

  /** Waits until all units have started, or failed. */
  async boot(): Promise<void> {
    const script = join(this.#directory, 'init.sh');
    writeFileSync(script, init(this.root));
    this.#child = spawn('unshare', ['-m', '-p', '-f', '-u', '-i', '-n', '-C', 'sh', script], {
      stdio: 'ignore',
    });
    const end = Date.now() + BOOT_MS_MAX;
    while (Date.now() < end && this.#child.exitCode === null) {
      await sleep(200);
      this.#init ??= childOf(this.#child.pid);
      if (this.#init === undefined) continue;
      if (/running|degraded/.test(this.in('systemctl', 'is-system-running').output)) return;
    }
    throw new Error('systemd did not boot in a copy of this machine');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // The end of its first process ends all of them.
    if (this.#init !== undefined) process.kill(Number(this.#init), 'SIGKILL');
    const child = this.#child;
    if (child !== undefined && child.exitCode === null && child.signalCode === null)
      await new Promise((done) => child.once('exit', done));
    for (const path of this.#mounts.reverse()) spawnSync('umount', ['-l', path]);
    rmdirSync(this.#directory);
  }

  #pid(): string {
    if (this.#init === undefined) throw new Error('the machine has not booted');
    return this.#init;
  }

  #mount(args: readonly string[], target: string): void {
    const { code, output } = ran('mount', [...args, target]);
    if (code !== 0) throw new Error(`mount ${target}: ${output}`);
    this.#mounts.push(target);
  }
}

function ran(command: string, args: readonly string[]): Ran {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', timeout: 120_000 });
  return { code: status, output: `${stdout}${stderr}` };
}

/** The one child of a process, once there is one that has become systemd. */
function childOf(pid: number | undefined): string | undefined {
  for (const name of readdirSync('/proc').filter((entry) => /^\d+$/.test(entry))) {
    try {
      const status = readFileSync(`/proc/${name}/status`, 'utf8');
      if (status.includes(`\nPPid:\t${pid}\n`) && status.startsWith('Name:\tsystemd\n')) return name;
    } catch {
      // It has ended.
    }
  }
  return undefined;
}
