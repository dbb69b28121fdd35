/**
 * The thread that decodes zstd blocks for zstd-fallback.ts: one per stream, terminated by its owner. It keeps
 * only the decoder of the current frame. Responses come in the order of the requests.
 */
import { parentPort } from 'node:worker_threads';
import { Decompress } from 'fzstd';
import type { Blocks } from './zstd-blocks.js';

export type DecodedBlocks = { data: Uint8Array } | { error: string };

let out: Uint8Array[] = [];
let decoder: Decompress | undefined;

function decode({ bytes, first, last }: Blocks): DecodedBlocks {
  out = [];
  if (first) decoder = new Decompress((chunk) => void out.push(chunk));
  try {
    decoder?.push(bytes, last);
  } catch (error) {
    return { error: error instanceof Error ? error.message : String(error) };
  }
  // A copy: the decoder uses its output as its window.
  const data = new Uint8Array(out.reduce((sum, chunk) => sum + chunk.length, 0));
  let at = 0;
  for (const chunk of out) {
    data.set(chunk, at);
    at += chunk.length;
  }
  return { data };
}

parentPort?.on('message', (blocks: Blocks) => {
  const result = decode(blocks);
  parentPort?.postMessage(result, 'data' in result ? [result.data.buffer as ArrayBuffer] : []);
});
