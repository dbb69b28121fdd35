/**
 * What a service is to the server: its full name and a plain function for each method. A method of the
 * definition without a function is Unimplemented. Implemented in services/, registered by rpc-server.ts.
 */
import type { DB } from '../db.js';
import type { GCStats } from '../gc/stats.js';
import type { Call, Duplex, Send } from './call.js';
import type { EventExchange } from './event-exchange.js';
import type { Limits } from './limits.js';
import type { Chunks } from './messages/chunks.js';
import type { Pictures } from './pictures.js';
import type { Policies } from './policies.js';

/** Declared as methods, whose parameters may be narrower: what is sent conforms to the definition. */
export type MethodImpl =
  | { kind: 'unary'; run(request: unknown, call: Call): unknown; keepsBytes?: number }
  | ListImpl
  | StreamImpl
  | { kind: 'duplex'; run(stream: Duplex<unknown, unknown>, call: Call): Promise<void> };
interface ListImpl {
  kind: 'list';
  field: string;
  run(request: unknown, call: Call): unknown;
}
interface StreamImpl {
  kind: 'stream';
  run(request: unknown, call: Call, send: Send<unknown>): Promise<void>;
  keepsBytes: number;
}

export interface Service {
  /** Full name: `containerd.services.images.v1.Images`. */
  readonly name: string;
  readonly methods: Readonly<Record<string, MethodImpl>>;
  /** Codecs for a method's messages that replace the general ones. */
  readonly codecs?: Readonly<Record<string, MethodCodecs>>;
  /** By method: the remedy when a response is larger than a message may be. */
  readonly tooLarge?: Readonly<Record<string, string>>;
  /** Whether errors carry object and remedy also for clients that do not ask for it. */
  readonly detailedErrors?: boolean;
}
export interface MethodCodecs {
  decodeRequest?(bytes: Buffer): unknown;
  /**
   * With PREFIX_BYTES free bytes before the message. MessageTooLarge: it takes more than `bytesMax` bytes.
   */
  frameResponse?(message: unknown, bytesMax: number): Buffer;
  /** Encodes what a list's function returns, if that is not its items. */
  chunks?(result: unknown): Chunks;
}

/** `keepsBytes`: about so many while it runs; default: as many as its responses have had. */
export const unary = <Request, Response>(
  run: (request: Request, call: Call) => Promise<Response> | Response,
  keepsBytes?: number,
): MethodImpl => methodOf({ kind: 'unary', run, ...(keepsBytes !== undefined && { keepsBytes }) });

/**
 * The response is one message with one list, encoded chunk by chunk: `field` is its name, `run` returns the
 * items.
 */
export const list = <Request, Items>(
  field: string,
  run: (request: Request, call: Call) => Promise<Items> | Items,
): MethodImpl => methodOf({ kind: 'list', field, run });

const STREAM_KEEPS_BYTES = 64 * 1024;

/** The response is a stream; a call keeps about this many bytes at a time. */
export const stream = <Request, Response>(
  run: (request: Request, call: Call, send: Send<Response>) => Promise<void>,
  keepsBytes = STREAM_KEEPS_BYTES,
): MethodImpl => methodOf({ kind: 'stream', run, keepsBytes });

/** Request and response are streams. */
export const duplex = <Request, Response>(
  run: (stream: Duplex<Request, Response>, call: Call) => Promise<void>,
): MethodImpl => methodOf({ kind: 'duplex', run });

/** Erases the types of the messages: from here on the definition stands for them. */
const methodOf = (impl: {
  kind: MethodImpl['kind'];
  run: unknown;
  keepsBytes?: number;
  field?: string;
}): MethodImpl => impl as MethodImpl;

/** What services work with. */
export interface ServiceHost {
  readonly db: DB;
  readonly root: string;
  /** Device and inode of the root. */
  readonly rootIdentity: string;
  readonly events: EventExchange;
  readonly limits: Limits;
  /** Aborted when the server stops: ends work that has no end of its own. */
  readonly stopping: AbortSignal;
  /** Counts and logs a collection that a client asked for with options of its own. */
  observe<T>(run: () => Promise<T>, statsOf: (result: T) => GCStats): Promise<T>;
  /** Runs a collection; if one is under way, waits for the next. */
  collect(signal: AbortSignal): Promise<GCStats>;
  /** Whether the services Transfer and Streaming are there. */
  readonly transfer: boolean;
  /** Whether the service Mounts is there. */
  readonly mounts: boolean;
  /** The daemon's own policy. */
  readonly policies: Policies;
  readonly pictures: Pictures;
}

export const EMPTY = {};
