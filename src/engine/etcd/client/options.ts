/**
 * How to reach an etcd cluster, and how this host behaves in it: read, checked and filled in once, at opening.
 * Called by open.ts, the configuration of the daemon and the command line. Nothing here ever shows a secret: errors name the option, not its value.
 */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { invalidArgument } from '../../../errors.js';

/** Certificates, as PEM text or bytes. */
export interface EtcdTls {
  /** PEM texts, or names of files that hold them. */
  ca?: string | Uint8Array;
  /** This client's certificate. */
  cert?: string | Uint8Array;
  /** The certificate's key. */
  key?: string | Uint8Array;
}

/** Where the cluster is, and how to reach it. */
export interface EtcdConfig {
  /** Client URLs of the members: `http://host:2379` or, all of them, `https://…`. */
  hosts: string | readonly string[];
  /** All keys of the tree begin with it; default `ebbtide/`. Trees with different prefixes do not meet. */
  prefix?: string;
  /** A user of etcd; default: none. */
  username?: string;
  /** Of the user. */
  password?: string;
  /** Encrypts the connections; default: not. */
  tls?: EtcdTls;
  /** Longest wait for the first response at opening, milliseconds; default 5000. */
  dialTimeoutMs?: number;
  /** Deadline of a single call, milliseconds; default 5000. */
  requestTimeoutMs?: number;
  /** How long an operation goes on through elections and restarts of members, milliseconds; default 30000. */
  operationTimeoutMs?: number;
  /** Seconds after which locks of a host that stopped are free for others; default 60, at least 2. */
  sessionTtlSeconds?: number;
  /**
   * Name of this host in the cluster. Unique. Default: the machine's name and the store's (or content's) directory;
   * without a directory, the machine's name and, while another host has that, a number.
   */
  hostId?: string;
  /** Name of this host's directories; hosts that share directories use the same one. Default: the host's name. */
  backendId?: string;
  /** Read from the mirror without asking etcd whether it is current. */
  serializable?: boolean;
}

export interface EtcdSettings {
  readonly hosts: readonly string[];
  readonly prefix: string;
  readonly auth: { username: string; password: string } | undefined;
  readonly credentials:
    | { rootCertificate: Buffer; privateKey?: Buffer; certChain?: Buffer }
    | 'system'
    | undefined;
  readonly dialTimeoutMs: number;
  readonly requestTimeoutMs: number;
  readonly operationTimeoutMs: number;
  readonly sessionTtlSeconds: number;
  readonly hostId: string;
  readonly backendId: string;
  readonly serializable: boolean;
}

const known = new Set([
  'hosts',
  'prefix',
  'username',
  'password',
  'tls',
  'dialTimeoutMs',
  'requestTimeoutMs',
  'operationTimeoutMs',
  'sessionTtlSeconds',
  'hostId',
  'backendId',
  'serializable',
]);

const NAME = /^[A-Za-z0-9._:@-]{1,200}$/;

/** InvalidArgument, naming the option, for everything that cannot work. `place` makes the default host id unique. */
export function etcdSettings(config: EtcdConfig, place = ''): EtcdSettings {
  for (const name of Object.keys(config)) {
    if (!known.has(name)) {
      throw invalidArgument(`etcd has no option "${name}"`, { remedy: `known: ${[...known].join(', ')}` });
    }
  }
  const hosts = hostList(config.hosts);
  const secure = hosts.every((host) => host.startsWith('https:'));
  if (hosts.some((host) => host.startsWith('https:') !== secure)) {
    throw invalidArgument('etcd hosts mix http and https', { remedy: 'use one of them for all members' });
  }
  const { prefix = 'ebbtide/' } = config;
  if (prefix !== '' && (!prefix.endsWith('/') || prefix.includes('\0'))) {
    throw invalidArgument(`the etcd prefix "${prefix}" does not end in "/"`, {
      object: prefix,
      remedy: 'end it in "/"',
    });
  }
  if ((config.username === undefined) !== (config.password === undefined)) {
    throw invalidArgument('etcd needs a user name and a password together', {
      remedy: 'give both or neither',
    });
  }
  const hostId = config.hostId ?? defaultHostId(place);
  const backendId = config.backendId ?? hostId;
  for (const [option, name] of Object.entries({ hostId, backendId })) {
    if (!NAME.test(name)) {
      throw invalidArgument(`etcd ${option} "${name.slice(0, 64)}" is not a valid name`, {
        remedy: 'use letters, digits and . _ : @ -',
      });
    }
  }
  return {
    hosts,
    prefix,
    auth:
      config.username === undefined
        ? undefined
        : { username: config.username, password: config.password ?? '' },
    credentials: secure ? credentials(config.tls) : undefined,
    dialTimeoutMs: milliseconds(config, 'dialTimeoutMs', 5000),
    requestTimeoutMs: milliseconds(config, 'requestTimeoutMs', 5000),
    operationTimeoutMs: milliseconds(config, 'operationTimeoutMs', 30_000),
    sessionTtlSeconds: sessionTtl(config.sessionTtlSeconds),
    hostId,
    backendId,
    serializable: config.serializable ?? false,
  };
}

function hostList(hosts: EtcdConfig['hosts']): string[] {
  const list = (typeof hosts === 'string' ? hosts.split(',') : [...(hosts ?? [])]).map((host) => host.trim());
  if (list.length === 0 || list.some((host) => host === '')) {
    throw invalidArgument('etcd needs the URL of at least one member', {
      remedy: 'name them: --etcd http://127.0.0.1:2379, option hosts',
    });
  }
  return list.map((host) => {
    const url = URL.canParse(host) ? new URL(host) : undefined;
    if (url === undefined || !/^https?:$/.test(url.protocol) || url.hostname === '') {
      // The text may hold a password: it is not repeated.
      throw invalidArgument('an etcd host is not of the form http://host:port', {
        remedy: 'use http:// or https://, a host name and a port',
      });
    }
    if (url.username !== '' || url.password !== '') {
      throw invalidArgument('an etcd host holds a user or password', {
        remedy: 'give them apart: --etcd-user and EBBTIDE_ETCD_PASSWORD, options username and password',
      });
    }
    return `${url.protocol}//${url.hostname}:${url.port || '2379'}`;
  });
}

function credentials(tls: EtcdTls | undefined): EtcdSettings['credentials'] {
  if (tls === undefined) return 'system';
  if ((tls.cert === undefined) !== (tls.key === undefined)) {
    throw invalidArgument('etcd TLS needs a client certificate and its key together', {
      remedy: 'give both or neither',
    });
  }
  if (tls.ca === undefined) {
    throw invalidArgument('etcd TLS options need the certificate authority', {
      remedy: 'give it: --etcd-ca, option tls.ca',
    });
  }
  return {
    rootCertificate: pem(tls.ca, 'ca'),
    ...(tls.key !== undefined && tls.cert !== undefined
      ? { privateKey: pem(tls.key, 'key'), certChain: pem(tls.cert, 'cert') }
      : {}),
  };
}

/** A PEM text as it is, or that of the file named. */
function pem(source: string | Uint8Array, option: string): Buffer {
  if (typeof source !== 'string') return Buffer.from(source);
  if (source.includes('-----BEGIN')) return Buffer.from(source);
  try {
    return readFileSync(source);
  } catch (error) {
    throw invalidArgument(`etcd tls.${option} cannot be read: ${(error as NodeJS.ErrnoException).code}`, {
      object: source,
      remedy: 'name a readable PEM file',
    });
  }
}

function milliseconds(config: EtcdConfig, name: keyof EtcdConfig, byDefault: number): number {
  const value = config[name] ?? byDefault;
  if (typeof value === 'number' && value > 0 && value <= 3_600_000) return value;
  throw invalidArgument(`etcd ${name} must be milliseconds above 0`);
}

function sessionTtl(seconds = 60): number {
  if (Number.isSafeInteger(seconds) && seconds >= 2 && seconds <= 86_400) return seconds;
  throw invalidArgument('etcd sessionTtlSeconds must be a whole number from 2 to 86400');
}

/** The machine's name and, where there is one, the place. */
export const defaultHostId = (place: string): string =>
  `${hostname()}${place === '' ? '' : `:${place.replace(/[^A-Za-z0-9._:@-]+/g, '.')}`}`.slice(-200);
