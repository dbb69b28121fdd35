/** One Transfer call under way, and what its parts have in common. Used by transfer.ts and the transfers that it chooses from. */
import { type EbbtideError, notImplemented, orAborted } from '../../errors.js';
import { type LeasedContext, readUnderLease, underLease } from '../../images/services.js';
import type { Call } from '../call.js';
import type { ServiceHost } from '../service.js';
import { resourceExhausted } from '../status.js';
import type { Reporter } from './progress.js';
import type { NamedStream } from './streams.js';

/** Transfers with registries that the daemon has under way: each keeps documents in memory, and waits for others' machines. */
const PLACES = 64;

export class Places {
  #taken = 0;

  /** ResourceExhausted: all are taken. Runs `work` in one. */
  async within(work: () => Promise<void>): Promise<void> {
    if (this.#taken >= PLACES)
      throw resourceExhausted(`${PLACES} transfers with registries are under way: try again later`);
    this.#taken++;
    try {
      await work();
    } finally {
      this.#taken--;
    }
  }
}

export interface Transfer {
  host: ServiceHost;
  call: Call;
  /** The stream of this id, which the caller closes. NotFound: none. */
  take(id: string): NamedStream;
  reporter: Reporter;
  places: Places;
}

/** Under the client's lease, or one that goes with the transfer, however it ends: nothing stays of one that fails. */
export const leased = <T>(
  { host, call }: Pick<Transfer, 'host' | 'call'>,
  work: (ctx: LeasedContext) => Promise<T>,
): Promise<T> => underLease(host.db, call.cancellable, 'transfer', work);

/** The same for a transfer that changes nothing here: without a lease where none can be made. */
export const reading = <T>(
  { host, call }: Pick<Transfer, 'host' | 'call'>,
  work: (ctx: LeasedContext) => Promise<T>,
): Promise<T> => readUnderLease(host.db, call.cancellable, 'transfer', work);

/** A stream that also ends with the call that uses it, whatever its other end does. */
export const untilAborted = (stream: NamedStream, signal: AbortSignal): NamedStream => ({
  receive: () => orAborted(stream.receive(), signal),
  send: (message) => orAborted(stream.send(message), signal),
  close: (error) => stream.close(error),
});

/** Runs `work` with a stream, which ends as it does. */
export async function using(stream: NamedStream, work: () => Promise<void>): Promise<void> {
  try {
    await work();
    stream.close();
  } catch (error) {
    stream.close(error);
    throw error;
  }
}

export const notHere = (what: string): EbbtideError =>
  notImplemented(`${what} is not here`, { remedy: 'let the client do it (`ctr`: --local)' });
