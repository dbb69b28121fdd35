/**
 * Draws what holds the disk, in formats for other programs and as a page of its own: the text in pieces, so that the memory for
 * a picture does not grow with its text. Called by db.ts.
 */
import type { CallContext } from '../context.js';
import { invalidArgument } from '../errors.js';
import type { CollectHost } from '../gc/host.js';
import type { BetweenRuns } from '../gc/report/marked-run.js';
import { heapsnapshot } from './formats/heapsnapshot.js';
import { json } from './formats/json.js';
import { ncdu } from './formats/ncdu.js';
import { speedscope } from './formats/speedscope.js';
import { html } from './html.js';
import { type Picture, takePicture } from './picture.js';

/** Characters of a piece. */
const PIECE_CHARACTERS = 64 * 1024;

const drawings: Readonly<
  Record<
    string,
    { hasLastUse: boolean; draw: (picture: Picture) => Iterable<string> | Promise<Iterable<string>> }
  >
> = {
  json: { hasLastUse: true, draw: json },
  ncdu: { hasLastUse: false, draw: ncdu },
  speedscope: { hasLastUse: false, draw: speedscope },
  heapsnapshot: { hasLastUse: false, draw: heapsnapshot },
  html: { hasLastUse: true, draw: html },
};

/** Formats for other programs. */
export const fileFormats = ['json', 'ncdu', 'speedscope', 'heapsnapshot'] as const;
/** What a picture can be drawn as: also as a page. */
export const pictureFormats = [...fileFormats, 'html'] as const;
/** One of them. */
export type PictureFormat = (typeof pictureFormats)[number];

/** How a picture is drawn. */
export interface PictureOptions {
  /** Default json. */
  format?: PictureFormat | undefined;
  /** Sizes are what the disk has, and all of the root is in the picture, instead of what the records say. */
  disk?: boolean | undefined;
  /** What a root's name is followed by; undefined: nothing. */
  describe?: ((kind: string, name: string) => string | undefined) | undefined;
}

/** InvalidArgument: no such format. Throws what the format throws before the first piece. */
export async function* drawPicture(
  host: CollectHost,
  betweenRuns: BetweenRuns,
  ctx: CallContext,
  { format = 'json', disk = false, describe }: PictureOptions = {},
): AsyncGenerator<string, void, void> {
  const drawing = pictureFormats.includes(format) ? drawings[format] : undefined;
  if (drawing === undefined) {
    throw invalidArgument(`there is no picture of format "${format}"`, {
      object: format,
      remedy: `use one of ${pictureFormats.join(', ')}`,
    });
  }
  const picture = await takePicture(host, betweenRuns, ctx, {
    ...{ disk, lastUse: drawing.hasLastUse, describe },
  });
  let piece = '';
  for (const text of await drawing.draw(picture)) {
    piece += text;
    if (piece.length < PIECE_CHARACTERS) continue;
    yield piece;
    piece = '';
    if (picture.pace.isOver) await picture.pace.pass();
  }
  if (piece !== '') yield piece;
}
