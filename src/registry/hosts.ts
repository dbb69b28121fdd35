/**
 * Which hosts serve a registry's name, in the order in which they are asked: those of the hosts directory that the client
 * names (hosts-directory.ts), or one by containerd's defaults. Called by client.ts.
 */
import { type Capability, isLocal, portOf, type RegistryHost, type Scheme } from './host.js';
import { type HostFile, readHostsDirectory } from './hosts-directory.js';

export interface HostOptions {
  /** Directory with one directory for each host; none: no configuration. */
  hostsDirectory?: string | undefined;
  /** Instead of `https`. */
  defaultScheme?: Scheme | undefined;
}

const ALL: ReadonlySet<Capability> = new Set<Capability>(['pull', 'resolve', 'push']);
const DOCKER_HUB = 'docker.io';
const DOCKER_HUB_HOST = 'registry-1.docker.io';

/** InvalidArgument, FailedPrecondition: the configuration cannot be read. */
export async function hostsOf(name: string, options: HostOptions): Promise<RegistryHost[]> {
  const { hostsDirectory } = options;
  const files = hostsDirectory ? await readHostsDirectory(hostsDirectory, name) : undefined;
  return (files ?? [{}]).map((file) => hostOf(name, file, options));
}

function hostOf(name: string, file: HostFile, options: HostOptions): RegistryHost {
  const { host, scheme, path } = file.server ?? byDefault(name, options);
  // A local registry has a certificate that nobody signed, or none.
  const lax = file.server === undefined && isLaxByDefault(name, options);
  const insecure = file.insecure ?? lax;
  const tls =
    file.ca !== undefined || file.pairs !== undefined || file.insecure !== undefined || lax
      ? { ca: file.ca ?? [], pairs: file.pairs ?? [], insecure, insecureElsewhere: file.insecure ?? false }
      : undefined;
  const isAmbiguous = scheme === 'http' && tls !== undefined && portOf(host) !== '80';
  return {
    scheme: isAmbiguous ? 'https' : scheme,
    ...{ host, path },
    capabilities: file.capabilities ?? ALL,
    headers: file.headers ?? {},
    ...(tls && { tls }),
    fallback: isAmbiguous,
    ...(file.connectMs !== undefined && { connectMs: file.connectMs }),
  };
}

function byDefault(
  name: string,
  { defaultScheme }: HostOptions,
): { host: string; scheme: Scheme; path: string } {
  if (name === DOCKER_HUB) return { host: DOCKER_HUB_HOST, scheme: 'https', path: '/v2' };
  const port = portOf(name);
  const local: Scheme = port === '' || port === '443' ? 'https' : 'http';
  return { host: name, scheme: defaultScheme ?? (isLocal(name) ? local : 'https'), path: '/v2' };
}

const isLaxByDefault = (name: string, { defaultScheme }: HostOptions): boolean =>
  defaultScheme === undefined && isLocal(name) && portOf(name) !== '80';

/** Whether a host answers for another name, which it has to be told then. */
export const isProxy = (name: string, { host }: RegistryHost): boolean =>
  host !== name && !(name === DOCKER_HUB && host === DOCKER_HUB_HOST);
