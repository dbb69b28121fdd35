/**
 * A real containerd whose content store and snapshotter are ours, as proxy plugins: it imports, unpacks, mounts,
 * restarts and removes images. Compared step by step with a containerd on its own built-in content and overlayfs.
 */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import type { MadeImages } from './images.js';
import type { Release } from './releases.js';
import { Server, type Side } from './servers.js';
import { Session, type StepResult, toolsOf } from './transcript.js';
import type { Section } from './transcript-steps.js';

/** The name of our snapshotter in containerd. It may not be that of a built-in plugin, not even of a disabled one. */
export const proxySnapshotter = 'ebbtide-overlayfs';

const image = 'example.com/conform/app';
const look =
  "cd $WORK/mounted && find . -type d -printf '%p %m %U:%G\\n' -o -printf '%p %y %m %U:%G %s %l %TY-%Tm-%Td %TT\\n' | LC_ALL=C sort | sha256sum && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum";

const beforeRestart: readonly Section[] = [
  {
    title: 'import and unpack',
    steps: [
      `ctr images import $LOCAL --snapshotter $SNAPSHOTTER --base-name ${image} $IMAGES/layout.tar`,
      'ctr images check --snapshotter $SNAPSHOTTER',
      'ctr content ls',
      'ctr content get $APP',
      'ctr snapshots --snapshotter $SNAPSHOTTER ls | sort',
      'ctr snapshots --snapshotter $SNAPSHOTTER usage | sort',
      'mkdir $WORK/mounted',
      `ctr containers create --snapshotter $SNAPSHOTTER ${image}:app web /bin/true`,
      'ctr snapshots --snapshotter $SNAPSHOTTER mounts $WORK/mounted web',
      'ctr snapshots --snapshotter $SNAPSHOTTER mounts $WORK/mounted web | sh',
      look,
      "cd $WORK/mounted && echo written >written && touch -d '2001-02-03 04:05:06' written",
      'umount $WORK/mounted',
      'ctr snapshots --snapshotter $SNAPSHOTTER diff web | list | grep -v " ./$"',
      'ctr -n second images import $LOCAL --snapshotter $SNAPSHOTTER $IMAGES/app.docker.tar',
      'ctr -n second images check --snapshotter $SNAPSHOTTER',
      'ctr content ls -q',
    ],
  },
];

const afterRestart: readonly Section[] = [
  {
    title: 'after a restart of both',
    steps: [
      'ctr images check --snapshotter $SNAPSHOTTER',
      'ctr -n second images check --snapshotter $SNAPSHOTTER',
      'ctr content ls -q',
      'ctr content get $CONFIG | sha256sum',
      'ctr snapshots --snapshotter $SNAPSHOTTER mounts $WORK/mounted web | sh',
      look,
      'cat $WORK/mounted/written',
      'umount $WORK/mounted',
    ],
  },
  {
    title: 'removal',
    steps: [
      `ctr images rm --sync ${image}:app`,
      'ctr images check --snapshotter $SNAPSHOTTER',
      'ctr snapshots --snapshotter $SNAPSHOTTER ls | sort',
      'ctr containers rm web',
      'ctr images rm --sync $(ctr images ls -q)',
      'ctr content ls',
      'ctr snapshots --snapshotter $SNAPSHOTTER ls',
      'ctr -n second images check --snapshotter $SNAPSHOTTER',
      'ctr -n second content get $LAYER | wc -c',
      'ctr -n second images rm --sync $(ctr -n second images ls -q)',
      'ctr -n second content ls',
    ],
  },
];

export interface ProxyRun {
  steps: StepResult[];
  /** Bytes that the back end has with the images there, and after their removal. */
  fullBytes: number;
  leftBytes: number;
}

/** On its own plugins. */
export async function runBuiltIn(dir: string, images: MadeImages, release: Release): Promise<ProxyRun> {
  await using server = await Server.start('containerd', { dir: join(dir, 'containerd'), release });
  return await runSteps(server, server, images, 'overlayfs', release);
}

/** With the plugins of `side`; containerd's own code served by backend/main.go when that is `containerd`. */
export async function runProxied(
  side: Side,
  dir: string,
  images: MadeImages,
  release: Release,
): Promise<ProxyRun> {
  const behindDir = join(dir, 'behind');
  const socket = join(behindDir, side === 'ebbtide' ? 'proxy.sock' : 's.sock');
  await using behind = await Server.start(side === 'ebbtide' ? 'ebbtide' : 'backend', {
    dir: behindDir,
    gc: 'scheduled',
    args: ['--proxy-address', socket],
  });
  await using server = await Server.start('containerd', {
    dir: join(dir, 'containerd'),
    release,
    disable: ['io.containerd.content.v1.content'],
    config: proxyConfig(socket),
  });
  return await runSteps(server, behind, images, proxySnapshotter, release);
}

const proxyConfig = (socket: string): string =>
  [
    '[proxy_plugins.ebbtide-content]',
    'type = "content"',
    `address = ${JSON.stringify(socket)}`,
    `[proxy_plugins.${proxySnapshotter}]`,
    'type = "snapshot"',
    `address = ${JSON.stringify(socket)}`,
  ].join('\n');

async function runSteps(
  server: Server,
  behind: Server,
  images: MadeImages,
  snapshotter: string,
  release: Release,
): Promise<ProxyRun> {
  const also = { ...toolsOf(release), SNAPSHOTTER: snapshotter };
  const session = new Session(server, images, also, [behind.root]);
  try {
    const steps = await session.run(beforeRestart);
    const fullBytes = usedBytes(behind.root);
    await server.stop();
    if (behind !== server) {
      await behind.stop();
      await behind.start();
    }
    await server.start();
    steps.push(...(await session.run(afterRestart)));
    return { steps: steps.map((s) => renamed(s, snapshotter)), fullBytes, leftBytes: usedBytes(behind.root) };
  } finally {
    session.close();
  }
}

/** The snapshotter's name must differ. */
function renamed(step: StepResult, snapshotter: string): StepResult {
  const rename = (lines: string[]): string[] => lines.map((l) => l.replaceAll(snapshotter, 'overlayfs'));
  return { ...step, stdout: rename(step.stdout), stderr: rename(step.stderr) };
}

function usedBytes(dir: string): number {
  const { stdout } = spawnSync('du', ['-s', '--block-size=1', dir], { encoding: 'utf8' });
  return Number.parseInt(String(stdout), 10);
}
