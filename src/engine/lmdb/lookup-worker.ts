/**
 * The thread that looks up many keys or nodes, as lookup.ts asks. It reads the tree only, each question at a state of
 * its own that is no older than the question.
 */
import { parentPort, workerData } from 'node:worker_threads';
import { openDatabases } from './databases.js';
import { decodeKey } from './key-codec.js';
import { possibleIds } from './key-index.js';
import { type Answer, NONE, type NodesAnswer, type Question } from './lookup.js';
import { nodeParts } from './node-codec.js';
import { lastSizeOf } from './table.js';

const dbs = await openDatabases(workerData as string, false); // only lookup.ts starts this

function nodesOf(ids: Uint32Array): NodesAnswer {
  const keys: string[] = [];
  const ends = new Uint32Array(ids.length);
  let bytes: Buffer = Buffer.allocUnsafeSlow(ids.length * 256);
  let end = 0;
  ids.forEach((id, i) => {
    const node = dbs.nodes.getBinaryFast(id);
    if (node === undefined) keys.push('');
    else {
      const size = lastSizeOf(dbs.nodes);
      const { keyStart, keyEnd } = nodeParts(id, node, size);
      keys.push(decodeKey(node, keyStart, keyEnd));
      if (end + size > bytes.length) bytes = grown(bytes, 2 * (end + size));
      bytes.set(node.subarray(0, size), end);
      end += size;
    }
    ends[i] = end;
  });
  return { keys, ends, bytes: bytes.subarray(0, end) };
}

/** Not from the pool of small buffers, which cannot be handed to another thread. */
function grown(bytes: Buffer, size: number): Buffer {
  const larger = Buffer.allocUnsafeSlow(size);
  larger.set(bytes);
  return larger;
}

function answerTo(question: Question): Answer {
  try {
    dbs.env.resetReadTxn();
    if (question.kind === 'nodes') return nodesOf(question.ids);
    return { ids: possibleIds(dbs, question.prefixes, question.leaves, NONE) };
  } catch {
    return undefined;
  }
}

parentPort?.on('message', (question: Question | 'stop') => {
  if (question === 'stop') {
    parentPort?.close();
    void dbs.env.close();
    return;
  }
  const answer = answerTo(question);
  if (answer === undefined) parentPort?.postMessage(answer);
  else if ('ids' in answer) parentPort?.postMessage(answer, [answer.ids.buffer as ArrayBuffer]);
  else {
    parentPort?.postMessage(answer, [answer.ends.buffer as ArrayBuffer, answer.bytes.buffer as ArrayBuffer]);
  }
});
