/** One host of a registry, and what its name says. Pure. */

export type Capability = 'pull' | 'resolve' | 'push';
export type Scheme = 'https' | 'http';

/** What a connection's TLS is made with; PEM texts. */
export interface HostTls {
  ca: readonly string[];
  /** Certificate and key of this client. */
  pairs: readonly { cert: string; key: string }[];
  /** Whether any certificate of the host is taken. */
  insecure: boolean;
  /** The same of what the host sends on to: its token server, its storage. */
  insecureElsewhere: boolean;
}

export interface RegistryHost {
  scheme: Scheme;
  /** With the port, if there is one. */
  host: string;
  /** Of the API: `/v2`. */
  path: string;
  capabilities: ReadonlySet<Capability>;
  headers: Readonly<Record<string, readonly string[]>>;
  tls?: HostTls | undefined;
  /** Asked by plain HTTP when its port does not speak TLS. */
  fallback: boolean;
  connectMs?: number | undefined;
}

/** '' without one. */
export const portOf = (host: string): string => /:(\d+)$/.exec(host)?.[1] ?? '';

/** This machine, by a name or an address that says so. */
export function isLocal(host: string): boolean {
  const bare = host.replace(/:\d+$/, '');
  return bare === 'localhost' || bare === '[::1]' || /^127(?:\.\d{1,3}){3}$/.test(bare);
}
