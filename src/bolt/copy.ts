/** Writes the buckets of a file into another one. Called by what makes a file smaller. */
import { failedPrecondition } from '../errors.js';
import type { Steps } from '../system/turns.js';
import type { Bucket } from './bucket.js';
import type { BoltWriter } from './writer.js';

interface Copied {
  readonly key: Buffer;
  readonly value: Buffer;
  readonly bucket: Bucket | undefined;
}

/** Buckets in buckets; containerd has seven. */
const DEPTH_MAX = 100;

/** All entries, and those of the buckets in it, into the writer's innermost bucket. */
export function* copyBucket(from: Bucket, to: BoltWriter, depth = 0): Steps {
  if (depth > DEPTH_MAX)
    throw failedPrecondition(`more than ${DEPTH_MAX} buckets in one another are not copied`);
  let entries: Copied[] = [];
  const steps = from.inSteps(({ bytes, keyAt, keyEnd, value, bucket }) => {
    entries.push({ key: bytes.subarray(keyAt, keyEnd), value, bucket });
  });
  for (let step = steps.next(); ; step = steps.next()) {
    for (const { key, value, bucket } of entries) {
      if (bucket === undefined) to.put(key, value);
      else {
        to.openBucket(key, bucket.sequence);
        yield* copyBucket(bucket, to, depth + 1);
        to.closeBucket();
      }
      yield to.isBehind ? to.drain() : undefined;
    }
    entries = [];
    if (step.done) return;
  }
}
