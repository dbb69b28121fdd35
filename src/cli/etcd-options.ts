/**
 * The global options that put the tree in etcd, as flags and environment. Called by main.ts and runner.ts. The
 * password comes from the environment or a file, never from the command line, where others could read it.
 */
import { readFileSync } from 'node:fs';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { EtcdConfig } from '../engine/etcd/client/options.js';
import { fsError } from '../system/system-errors.js';

export interface EtcdOptions {
  etcd?: string;
  etcdPrefix?: string;
  etcdUser?: string;
  etcdPasswordFile?: string;
  etcdCa?: string;
  etcdCert?: string;
  etcdKey?: string;
  etcdHostId?: string;
  etcdBackendId?: string;
  etcdTimeout?: number;
  etcdSessionTtl?: number;
  etcdSerializable?: boolean;
}

export function addEtcdOptions(program: Command): void {
  const option = (flags: string, text: string, env: string): Option => new Option(flags, text).env(env);
  program
    .addOption(
      option('--etcd <urls>', 'keep the tree in etcd: client URLs, separated by commas', 'EBBTIDE_ETCD'),
    )
    .addOption(option('--etcd-prefix <prefix>', 'keys of the tree begin with it', 'EBBTIDE_ETCD_PREFIX'))
    .addOption(
      option('--etcd-user <name>', 'user; the password is EBBTIDE_ETCD_PASSWORD', 'EBBTIDE_ETCD_USER'),
    )
    .addOption(option('--etcd-password-file <file>', 'file with the password', 'EBBTIDE_ETCD_PASSWORD_FILE'))
    .addOption(option('--etcd-ca <file>', 'certificate authority of the members (PEM)', 'EBBTIDE_ETCD_CA'))
    .addOption(option('--etcd-cert <file>', 'client certificate (PEM)', 'EBBTIDE_ETCD_CERT'))
    .addOption(option('--etcd-key <file>', 'key of the client certificate (PEM)', 'EBBTIDE_ETCD_KEY'))
    .addOption(option('--etcd-host-id <name>', 'name of this host in the cluster', 'EBBTIDE_ETCD_HOST_ID'))
    .addOption(
      option(
        '--etcd-backend-id <name>',
        'common name of the hosts that share directories',
        'EBBTIDE_ETCD_BACKEND_ID',
      ),
    )
    .addOption(
      option('--etcd-timeout <ms>', 'deadline of a single call', 'EBBTIDE_ETCD_TIMEOUT').argParser(count),
    )
    .addOption(
      option(
        '--etcd-session-ttl <seconds>',
        'when locks of a dead host are released',
        'EBBTIDE_ETCD_SESSION_TTL',
      ).argParser(count),
    )
    .addOption(
      option(
        '--etcd-serializable',
        'read from the mirror without waiting for the newest state',
        'EBBTIDE_ETCD_SERIALIZABLE',
      ),
    );
}

/** Undefined without `--etcd`: the store is embedded. */
export function etcdConfig(options: EtcdOptions): EtcdConfig | undefined {
  if (options.etcd === undefined) return undefined;
  const password = passwordOf(options);
  const { etcdCa, etcdCert, etcdKey } = options;
  const tls = {
    ...(etcdCa !== undefined && { ca: etcdCa }),
    ...(etcdCert !== undefined && { cert: etcdCert }),
    ...(etcdKey !== undefined && { key: etcdKey }),
  };
  return {
    hosts: options.etcd,
    ...(options.etcdPrefix !== undefined && { prefix: options.etcdPrefix }),
    ...(options.etcdUser !== undefined && { username: options.etcdUser }),
    ...(password !== undefined && { password }),
    ...(Object.keys(tls).length > 0 && { tls }),
    ...(options.etcdHostId !== undefined && { hostId: options.etcdHostId }),
    ...(options.etcdBackendId !== undefined && { backendId: options.etcdBackendId }),
    ...(options.etcdTimeout !== undefined && { requestTimeoutMs: options.etcdTimeout }),
    ...(options.etcdSessionTtl !== undefined && { sessionTtlSeconds: options.etcdSessionTtl }),
    ...(options.etcdSerializable === true && { serializable: true }),
  };
}

function passwordOf({ etcdUser, etcdPasswordFile }: EtcdOptions): string | undefined {
  if (etcdPasswordFile === undefined) {
    return etcdUser === undefined ? undefined : process.env.EBBTIDE_ETCD_PASSWORD;
  }
  try {
    return readFileSync(etcdPasswordFile, 'utf8').replace(/\r?\n$/, '');
  } catch (error) {
    throw fsError('read the etcd password', etcdPasswordFile, error);
  }
}

function count(text: string): number {
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value <= 0)
    throw new InvalidArgumentError('must be a whole number above 0');
  return value;
}
