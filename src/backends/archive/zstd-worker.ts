/**
 * The thread that unfolds zstd blocks for zstd.ts: one per stream, ended by its owner. It keeps nothing but the
 * decoder of the current frame. Answers come in the order of the requests.
 */
import { parentPort } from 'node:worker_threads';
import { Decompress } from 'fzstd';

export interface BlockRequest {
  /** The block; a frame's first one comes behind the frame's header. */
  bytes: Uint8Array;
  first: boolean;
  last: boolean;
}

export type BlockAnswer = { data: Uint8Array } | { error: string };

let out: Uint8Array[] = [];
let decoder: Decompress | undefined;

function unfold({ bytes, first, last }: BlockRequest): BlockAnswer {
  out = [];
  if (first) decoder = new Decompress((chunk) => void out.push(chunk));
  try {
    decoder?.push(bytes, last);
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
  // A copy of its own: the decoder goes on using what it handed out as its window.
  const data = new Uint8Array(out.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of out) {
    data.set(chunk, at);
    at += chunk.length;
  }
  return { data };
}

parentPort?.on('message', (request: BlockRequest) => {
  const answer = unfold(request);
  parentPort?.postMessage(answer, 'data' in answer ? [answer.data.buffer as ArrayBuffer] : []);
});
