/**
 * Pictures that clients ask for: each takes memory for all records while it is drawn, so few are drawn at once. Called by the
 * service of our own API, and for the page beside the metrics.
 */
import type { CallContext } from '../context.js';
import type { DB } from '../db.js';
import { EbbtideError } from '../errors.js';
import type { PictureOptions } from '../pictures/draw.js';
import { contentPolicy } from '../pictures/html.js';

/** Pictures drawn at once. */
const DRAWN_MAX = 2;
/** A page is used for so long, and for this multiple of the time it took. */
const USED_MS = 2000;
const USED_TIMES = 10;

export class Pictures {
  readonly #db: DB;
  readonly #stopping: AbortSignal;
  #drawn = 0;
  #page: Promise<Page> | undefined;
  /** Until when the page is used. */
  #until = 0;

  /** @param stopping ends the drawing of the page, which is nobody's own */
  constructor(db: DB, stopping: AbortSignal) {
    this.#db = db;
    this.#stopping = stopping;
  }

  /** As `DB.picture`. ResourceExhausted: others are being drawn. */
  async *draw(ctx: CallContext, options: PictureOptions): AsyncGenerator<string, void, void> {
    if (this.#drawn >= DRAWN_MAX) {
      throw new EbbtideError('ResourceExhausted', `${DRAWN_MAX} pictures are being drawn already`, {
        remedy: 'try again when they are done',
      });
    }
    this.#drawn++;
    try {
      yield* this.#db.picture(ctx, options);
    } finally {
      this.#drawn--;
    }
  }

  /** The page, as headers and text. Requests share one that is drawn, and a while afterwards the same. */
  async page(): Promise<Page> {
    const started = performance.now();
    if (this.#page !== undefined && started < this.#until) return this.#page;
    const page = this.#drawPage();
    this.#page = page;
    this.#until = Number.POSITIVE_INFINITY;
    try {
      return await page;
    } catch (error) {
      this.#page = undefined;
      throw error;
    } finally {
      const ended = performance.now();
      this.#until = ended + Math.max(USED_MS, USED_TIMES * (ended - started));
    }
  }

  async #drawPage(): Promise<Page> {
    const pieces: Buffer[] = [];
    for await (const piece of this.draw({ signal: this.#stopping }, { format: 'html', disk: true }))
      pieces.push(Buffer.from(piece));
    const policy = `${await contentPolicy()}; frame-ancestors 'none'`;
    return { body: Buffer.concat(pieces), headers: { ...headers, 'content-security-policy': policy } };
  }
}

export interface Page {
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer;
}

const headers = {
  'content-type': 'text/html; charset=utf-8',
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
};
