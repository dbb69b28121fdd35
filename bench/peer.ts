/**
 * Builds the peer from Debian's packages: containerd's own metadata package and our program around it
 * (peer/*.go). The program goes into the scratch directory; nothing is downloaded but by apt.
 */
import { mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runText } from './child.js';

const packages = ['golang-go', 'golang-github-containerd-containerd-dev'] as const;
const sources = fileURLToPath(new URL('../../bench/peer/', import.meta.url));

export interface Peer {
  /** Path of the program. */
  program: string;
  /** Like `containerd 1.6.20, bbolt 1.3.6, Go 1.19.8`. */
  version: string;
}
export type PeerOrReason = Peer | { missing: string };

/** The peer, or in a sentence why there is none. `install`: as root, missing packages are installed. */
export async function buildPeer(scratch: string, install: boolean): Promise<PeerOrReason> {
  const absent = await missingPackages();
  if (absent.length > 0) {
    const names = absent.join(' and ');
    if (!install || process.getuid?.() !== 0) {
      return { missing: `The peer is left out: it needs Debian's ${names} (apt-get install them).` };
    }
    process.stderr.write(`installing ${names}\n`);
    try {
      const env = { DEBIAN_FRONTEND: 'noninteractive' };
      await runText({ command: 'apt-get', args: ['update', '-qq'], env });
      await runText({ command: 'apt-get', args: ['install', '-y', '-qq', ...absent], env });
    } catch (error) {
      return { missing: `The peer is left out: ${names} could not be installed (${messageOf(error)}).` };
    }
  }
  try {
    return { program: await compile(scratch), version: await versions() };
  } catch (error) {
    return { missing: `The peer is left out: it could not be built (${messageOf(error)}).` };
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

async function missingPackages(): Promise<string[]> {
  const absent: string[] = [];
  for (const name of packages) {
    const status = await query('Status', name).catch(() => '');
    if (!status.includes('ok installed')) absent.push(name);
  }
  return absent;
}

/** A field of an installed package. */
async function query(field: string, name: string): Promise<string> {
  // Its complaint about an unknown package is expected here.
  const script = 'dpkg-query -W -f="$1" "$2" 2>/dev/null';
  return runText({ command: 'sh', args: ['-c', script, 'dpkg-query', `\${${field}}`, name] });
}

async function compile(scratch: string): Promise<string> {
  const listed = await runText({ command: 'dpkg', args: ['-L', packages[1]] });
  const root = listed.split('\n').find((line) => line.endsWith('/src'));
  if (root === undefined) throw new Error(`${packages[1]} has no source tree`);
  const program = join(scratch, 'peer-program');
  const cache = join(scratch, 'go-cache');
  await mkdir(cache, { recursive: true });
  await runText({
    command: 'go',
    args: ['build', '-o', program, '.'],
    cwd: sources,
    env: { GO111MODULE: 'off', GOFLAGS: '', GOPATH: dirname(root), GOCACHE: cache },
  });
  return program;
}

async function versions(): Promise<string> {
  const upstream = async (name: string): Promise<string> =>
    (await query('Version', name)).replace(/^\d+:/, '').replace(/[~+-].*$/, '');
  const containerd = await upstream(packages[1]);
  const bbolt = await upstream('golang-github-coreos-bbolt-dev').catch(() => 'unknown');
  const go = (await runText({ command: 'go', args: ['env', 'GOVERSION'] })).trim().replace('go', '');
  return `containerd ${containerd}, bbolt ${bbolt}, Go ${go}`;
}
