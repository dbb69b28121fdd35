/**
 * A network of its own for members and hosts: each place is a network namespace on one bridge, and can be cut off the
 * others without a signal: packets vanish, connections stay. The process that makes the network must live in
 * a namespace of its own already (`inOwnNetwork`); all of it goes when the processes go, and the machine's own
 * interfaces are never touched.
 */
import { type ChildProcess, execFileSync, spawnSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import { aptInstall } from '../support/apt.js';
import { eventually } from './hosts.js';
import { spawnMortal } from './mortal.js';

const NET = '10.77.0';

/** Where a process runs: its address, and what its command line begins with. */
export interface Place {
  readonly address: string;
  readonly command: readonly string[];
}

/** The command line that runs a program in a network of its own; undefined, with the reason, where that is not permitted. */
export function inOwnNetwork(): { command: readonly string[] } | { refused: string } {
  const asRoot = process.getuid?.() === 0;
  if (asRoot && spawnSync('ip', ['-V'], { stdio: 'ignore' }).status !== 0) aptInstall(['iproute2']);
  const command = ['unshare', ...(asRoot ? [] : ['--user', '--map-root-user']), '--net', '--'];
  const [program = '', ...args] = command;
  const trial =
    'ip link set lo up && ip link add name hub type bridge && ip link add name port type veth peer name eth0 && unshare --net true';
  const tried = spawnSync(program, [...args, 'sh', '-c', trial], { encoding: 'utf8' });
  if (tried.status === 0) return { command };
  const said = tried.error?.message ?? tried.stderr;
  return { refused: `network namespaces are not permitted here: ${said.trim().split('\n').at(-1)}` };
}

export class Network {
  readonly #anchors: ChildProcess[] = [];

  private constructor() {}

  /** This process's own namespace becomes the switch; it reaches every place. */
  static start(): Network {
    ip('link', 'set', 'lo', 'up');
    ip('link', 'add', 'hub', 'type', 'bridge');
    ip('addr', 'add', `${NET}.1/24`, 'dev', 'hub');
    ip('link', 'set', 'hub', 'up');
    return new Network();
  }

  /** A new place; a process that only waits keeps it while its members and hosts are killed. */
  async place(): Promise<Place> {
    const anchor = spawnMortal('unshare', ['--net', 'sleep', 'infinity'], { stdio: 'ignore' });
    const pid = anchor.pid!;
    const own = readlinkSync('/proc/self/ns/net');
    await eventually('the place is there', () => readlinkSync(`/proc/${pid}/ns/net`) !== own);
    const command = ['nsenter', `--net=/proc/${pid}/ns/net`, '--'];
    const place: Place = { address: `${NET}.${this.#anchors.length + 2}`, command };
    this.#anchors.push(anchor);
    ip('link', 'add', portOf(place), 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(pid));
    ip('link', 'set', portOf(place), 'master', 'hub', 'up');
    within(place, 'link', 'set', 'lo', 'up');
    within(place, 'addr', 'add', `${place.address}/24`, 'dev', 'eth0');
    within(place, 'link', 'set', 'eth0', 'up');
    return place;
  }

  end(): void {
    for (const anchor of this.#anchors) anchor.kill('SIGKILL');
  }

  /** Nothing goes to a place and nothing comes from it. */
  unplug(place: Place): void {
    ip('link', 'set', portOf(place), 'nomaster');
  }
  plug(place: Place): void {
    ip('link', 'set', portOf(place), 'master', 'hub');
  }

  /** What a place sends to others vanishes, what they send arrives. */
  mute(place: Place, towards: readonly Place[]): void {
    for (const { address } of towards) within(place, 'route', 'add', 'blackhole', `${address}/32`);
  }
  unmute(place: Place, towards: readonly Place[]): void {
    for (const { address } of towards) within(place, 'route', 'del', 'blackhole', `${address}/32`);
  }

  /** What others send to a place vanishes, what it sends arrives. */
  deafen(place: Place, others: readonly Place[]): void {
    for (const other of others) this.mute(other, [place]);
  }
  undeafen(place: Place, others: readonly Place[]): void {
    for (const other of others) this.unmute(other, [place]);
  }

  /** Nothing goes between a place and others; with the rest of the network it speaks on. */
  cut(place: Place, others: readonly Place[]): void {
    this.mute(place, others);
    this.deafen(place, others);
  }
  heal(place: Place, others: readonly Place[]): void {
    this.unmute(place, others);
    this.undeafen(place, others);
  }
}

const portOf = ({ address }: Place): string => `port${address.split('.').at(-1)}`;

function ip(...args: string[]): void {
  execFileSync('ip', args, { stdio: ['ignore', 'ignore', 'pipe'] });
}

function within({ command }: Place, ...args: string[]): void {
  const [program = '', ...rest] = [...command, 'ip', ...args];
  execFileSync(program, rest, { stdio: ['ignore', 'ignore', 'pipe'] });
}
