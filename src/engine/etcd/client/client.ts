/**
 * The only file that knows the `etcd3` package: calls with deadlines, message sizes and keepalive, failover between
 * members, raw watch and lease streams. Keys here are relative to the tree's prefix. Called by the rest of this room.
 *
 * The package's own retries are off: it would repeat a commit whose response was lost. Reads are tried at every
 * member; writes once, and the caller finds out what became of them.
 */
import { createRequire } from 'node:module';
import type {
  Etcd3,
  ICompare,
  IDuplexStream,
  IKeyValue,
  ILeaseKeepAliveRequest,
  ILeaseKeepAliveResponse,
  IOptions,
  IRangeRequest,
  IRangeResponse,
  IRequestOp,
  ITxnResponse,
  IWatchRequest,
  IWatchResponse,
} from 'etcd3';
import { present } from '../../../errors.js';
import { EtcdFailure, etcdFailure } from './failure.js';
import type { EtcdSettings } from './options.js';

/** One etcd key with what etcd knows of it; `key` is relative to the prefix. */
export interface KeyValue {
  readonly key: string;
  readonly value: Buffer;
  readonly create: number;
  readonly mod: number;
  readonly version: number;
}

export interface RangeOptions {
  /** Relative end; undefined: only the key. */
  end?: string | undefined;
  revision?: number | undefined;
  limit?: number | undefined;
  keysOnly?: boolean | undefined;
  countOnly?: boolean | undefined;
  serializable?: boolean | undefined;
  newestFirst?: boolean | undefined;
  timeoutMs?: number | undefined;
}
export interface RangeResult {
  readonly revision: number;
  readonly kvs: readonly KeyValue[];
  readonly count: number;
  readonly more: boolean;
}

/** A condition of a transaction. */
export type Compare =
  | { key: string; end?: string | undefined; is: 'unchanged since'; revision: number }
  | { key: string; is: 'present' }
  | { key: string; end?: string | undefined; is: 'absent' }
  | { key: string; is: 'created at' | 'modified at'; revision: number };
export type Op =
  | { put: string; value: string | Uint8Array; lease?: string | undefined }
  | { del: string; end?: string | undefined }
  /** `newest`: only the one modified last, without its value. */
  | { get: string; end?: string | undefined; newest?: boolean };
export interface TxnResult {
  readonly succeeded: boolean;
  readonly revision: number;
  /** Results of `get`, in the order of the operations that ran. */
  readonly gets: readonly (readonly KeyValue[])[];
}

export type WatchStream = IDuplexStream<IWatchRequest, IWatchResponse>;
export type KeepAliveStream = IDuplexStream<ILeaseKeepAliveRequest, ILeaseKeepAliveResponse>;

/** The end of the range of all keys that begin with `prefix`. */
export function prefixEnd(prefix: string): string {
  // Relative prefixes end in "/" or are escaped components, so the last unit is plain ASCII.
  return prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
}

const closedFailure = (): EtcdFailure =>
  new EtcdFailure('FailedPrecondition', 'the store is closed', { remedy: 'open it again' });

const noPolicy = {
  execute: async <T>(fn: (context: { signal: AbortSignal }) => T | Promise<T>): Promise<T> =>
    fn({ signal: new AbortController().signal }),
};

export class EtcdClient {
  settings: EtcdSettings;
  readonly #prefix: Buffer;
  readonly #prefixText: string;
  readonly #members: Etcd3[];
  /** The member that is asked first. */
  #preferred = 0;
  #closed = false;
  clusterId = '';

  constructor(settings: EtcdSettings) {
    this.settings = settings;
    this.#prefixText = settings.prefix;
    this.#prefix = Buffer.from(settings.prefix);
    // Loaded when it is needed: it reads protocol files, which an embedded store shall not wait for.
    const package_ = createRequire(import.meta.url)('etcd3') as typeof import('etcd3');
    this.#members = settings.hosts.map((host) => new package_.Etcd3(memberOptions(settings, host)));
  }

  /** This client under another host's name, with the same connections. Before the first session only. */
  as(settings: EtcdSettings): this {
    this.settings = settings;
    return this;
  }

  /** Sends the next calls to another member first. */
  rotate(): void {
    this.#preferred = (this.#preferred + 1) % this.#members.length;
  }

  async range(key: string, options: RangeOptions = {}): Promise<RangeResult> {
    const { countOnly = false } = options;
    const request: IRangeRequest = {
      key: this.#bytes(key),
      limit: options.limit ?? 0,
      revision: options.revision ?? 0,
      keys_only: options.keysOnly ?? false,
      count_only: countOnly,
      serializable: options.serializable ?? false,
    };
    if (options.end !== undefined) request.range_end = this.#end(options.end);
    if (options.newestFirst) Object.assign(request, { sort_order: 2, sort_target: 3 });
    const response = await this.#anywhere('read from etcd', options.timeoutMs, (member, call) =>
      member.kv.range(request, call),
    );
    return this.#rangeResult(response);
  }

  /** Range requests as given, keys absolute, all at one revision; for raw reads with every option. */
  async rawRanges(requests: readonly IRangeRequest[]): Promise<RangeResult[]> {
    const txn = { compare: [], success: requests.map((request_range) => ({ request_range })), failure: [] };
    const response = await this.#anywhere('read from etcd', undefined, (member, call) =>
      member.kv.txn(txn, call),
    );
    // The responses in a transaction have no header of their own.
    return response.responses.map(({ response_range }) =>
      this.#rangeResult({ ...response_range, header: response.header }),
    );
  }

  async txn(
    compare: readonly Compare[],
    success: readonly Op[],
    failure: readonly Op[] = [],
  ): Promise<TxnResult> {
    const request = {
      compare: compare.flatMap((one) => this.#compare(one)),
      success: success.map((op) => this.#op(op)),
      failure: failure.map((op) => this.#op(op)),
    };
    const response = await this.#once('write to etcd', (member, call) => member.kv.txn(request, call));
    return this.#txnResult(response);
  }

  async grantLease(ttlSeconds: number): Promise<string> {
    const response = await this.#anywhere('begin a session with etcd', undefined, (member, call) =>
      member.leaseClient.leaseGrant({ TTL: ttlSeconds }, call),
    );
    return response.ID;
  }

  async revokeLease(id: string): Promise<void> {
    await this.#anywhere('end the session with etcd', undefined, (member, call) =>
      member.leaseClient.leaseRevoke({ ID: id }, call),
    );
  }

  keepAlive(): Promise<KeepAliveStream> {
    return this.#stream((member) => member.leaseClient.leaseKeepAlive());
  }

  watchStream(): Promise<WatchStream> {
    return this.#stream((member) => member.watchClient.watch());
  }

  /** The request that watches the whole prefix. */
  watchRequest(startRevision: number): IWatchRequest {
    return {
      create_request: {
        key: this.#prefix.length === 0 ? Buffer.from([0]) : this.#prefix,
        range_end: this.#end(''),
        start_revision: startRevision,
        progress_notify: true,
        fragment: true,
      },
    };
  }

  /** A key of a watch event or range, relative to the prefix. */
  keyValue(kv: IKeyValue): KeyValue {
    return {
      key: kv.key.toString('utf8').slice(this.#prefixText.length),
      value: kv.value,
      create: Number(kv.create_revision),
      mod: Number(kv.mod_revision),
      version: Number(kv.version),
    };
  }

  /** Absolute end of the range of all keys of the tree. */
  get endOfTree(): Buffer {
    return this.#end('');
  }

  /** Absolute bytes of a relative key. */
  absolute(key: string): Buffer {
    return this.#bytes(key);
  }

  close(): void {
    this.#closed = true;
    for (const member of this.#members) member.close();
  }

  // ----------------------------------------------------------------------------------------------------- calls

  async #anywhere<T>(
    doing: string,
    timeoutMs: number | undefined,
    call: (member: Etcd3, options: { deadline: number }) => Promise<T>,
  ): Promise<T> {
    let failure: EtcdFailure | undefined;
    for (let i = 0; i < this.#members.length; i++) {
      try {
        return await this.#call(call, timeoutMs);
      } catch (error) {
        failure = etcdFailure(error, doing);
        if (!failure.elsewhere) throw failure;
        this.rotate();
      }
    }
    throw failure;
  }

  async #once<T>(
    doing: string,
    call: (member: Etcd3, options: { deadline: number }) => Promise<T>,
  ): Promise<T> {
    try {
      return await this.#call(call, undefined);
    } catch (error) {
      const failure = etcdFailure(error, doing);
      if (failure.elsewhere) this.rotate();
      throw failure;
    }
  }

  get #member(): Etcd3 {
    return present(this.#members[this.#preferred], 'a member of etcd');
  }

  async #call<T>(
    call: (member: Etcd3, options: { deadline: number }) => Promise<T>,
    timeoutMs = this.settings.requestTimeoutMs,
  ): Promise<T> {
    if (this.#closed) throw closedFailure();
    const response = await call(this.#member, { deadline: Date.now() + timeoutMs });
    const { header } = response as { header?: { cluster_id?: string } };
    if (header?.cluster_id !== undefined) this.clusterId = header.cluster_id;
    return response;
  }

  async #stream<T extends IDuplexStream<unknown, unknown>>(open: (member: Etcd3) => Promise<T>): Promise<T> {
    if (this.#closed) throw closedFailure();
    try {
      return await open(this.#member);
    } catch (error) {
      this.rotate();
      throw etcdFailure(error, 'open a stream to etcd');
    }
  }

  // -------------------------------------------------------------------------------------------------- messages

  #bytes(key: string): Buffer {
    return Buffer.from(this.#prefixText + key);
  }

  /** '' stands for the end of the whole tree. */
  #end(end: string): Buffer {
    if (end !== '') return this.#bytes(end);
    return this.#prefixText === '' ? Buffer.from([0]) : Buffer.from(prefixEnd(this.#prefixText));
  }

  #compare(one: Compare): ICompare[] {
    const key = this.#bytes(one.key);
    const range = 'end' in one && one.end !== undefined ? { range_end: this.#end(one.end) } : {};
    switch (one.is) {
      case 'unchanged since':
        // Keys that are absent count as modified at revision 0.
        return [{ key, ...range, target: 2, result: 2, mod_revision: one.revision + 1 }];
      case 'created at':
        return [{ key, target: 1, result: 0, create_revision: one.revision }];
      case 'modified at':
        return [{ key, target: 2, result: 0, mod_revision: one.revision }];
      case 'present':
        return [{ key, target: 0, result: 1, version: 0 }];
      case 'absent':
        return [{ key, ...range, target: 0, result: 0, version: 0 }];
    }
  }

  #op(op: Op): IRequestOp {
    if ('put' in op) {
      const value = typeof op.value === 'string' ? Buffer.from(op.value) : Buffer.from(op.value);
      return { request_put: { key: this.#bytes(op.put), value, lease: op.lease ?? 0 } };
    }
    const key = this.#bytes('del' in op ? op.del : op.get);
    const range = op.end === undefined ? { key } : { key, range_end: this.#end(op.end) };
    if ('del' in op) return { request_delete_range: range };
    const newest = op.newest ? { sort_order: 2, sort_target: 3, limit: 1, keys_only: true } : {};
    return { request_range: { ...range, ...newest } };
  }

  #rangeResult(response: IRangeResponse): RangeResult {
    return {
      revision: Number(response.header.revision),
      kvs: response.kvs.map((kv) => this.keyValue(kv)),
      count: Number(response.count),
      more: response.more,
    };
  }

  #txnResult(response: ITxnResponse): TxnResult {
    const gets: (readonly KeyValue[])[] = [];
    for (const { response_range } of response.responses) {
      if (response_range) gets.push(response_range.kvs.map((kv) => this.keyValue(kv)));
    }
    return { succeeded: response.succeeded, revision: Number(response.header.revision), gets };
  }
}

function memberOptions(settings: EtcdSettings, host: string): IOptions {
  const { auth, credentials } = settings;
  return {
    hosts: host,
    ...(auth && {
      auth: { ...auth, callOptions: () => ({ deadline: Date.now() + settings.dialTimeoutMs }) },
    }),
    ...(credentials !== undefined && credentials !== 'system' && { credentials }),
    dialTimeout: settings.dialTimeoutMs,
    grpcOptions: {
      // A page of a large range, or the changes of a long absence, pass the default of 4 MiB.
      'grpc.max_receive_message_length': -1,
      'grpc.max_send_message_length': -1,
      // A member that hangs closes no connection: without pings its streams would wait for ever.
      'grpc.keepalive_time_ms': 10_000,
      'grpc.keepalive_timeout_ms': 5_000,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 2_000,
    },
    // Policies of the package would repeat calls, or refuse them for a while; both are decided here.
    faultHandling: { global: noPolicy, host: () => noPolicy } as unknown as NonNullable<
      IOptions['faultHandling']
    >,
  };
}
