/**
 * Conditional references: a label on content or an image that refers to a snapshot for one run, if a time the
 * snapshot supplies is young or old enough. Pure functions over label maps; called by run-edges.ts.
 *
 *   containerd.io/gc.cond.snapshot.<snapshotter>[/…] = <condition>[,<condition>…]|<snapshot key>
 *   condition = usedat<1h30m, usedat>24h; what does not parse is skipped, the others count
 */
import { Label } from '../../model/labels.js';
import { type Instant, parseDuration } from '../../model/time.js';

interface AgeTest {
  /** True for `<`: the age must be below the limit; false for `>`. */
  readonly below: boolean;
  /** Nanoseconds. */
  readonly limit: bigint;
}

/** One conditional label, parsed. */
export interface ConditionalReference {
  readonly snapshotter: string;
  readonly snapshotKey: string;
  /** The reference counts when any of these holds for any supplied time. */
  readonly tests: readonly AgeTest[];
}

type Labels = Readonly<Record<string, unknown>>;

/** The conditional references among the labels of content or an image. */
export function conditionalReferences(labels: Labels): ConditionalReference[] {
  const found: ConditionalReference[] = [];
  for (const name in labels) {
    const value = labels[name];
    if (!name.startsWith(Label.gcCondSnapshot) || typeof value !== 'string') continue;
    const snapshotter = snapshotterOf(name.slice(Label.gcCondSnapshot.length));
    const bar = value.indexOf('|');
    if (bar < 0 || snapshotter === '') continue;
    const tests = value.slice(0, bar).split(',').map(parseTest);
    found.push({
      snapshotter,
      snapshotKey: value.slice(bar + 1),
      tests: tests.filter((test) => test !== undefined),
    });
  }
  return found;
}

export function conditionHolds(tests: readonly AgeTest[], times: readonly Instant[], now: Instant): boolean {
  return times.some((time) =>
    tests.some((test) => (test.below ? now - time < test.limit : now - time > test.limit)),
  );
}

/** `rest` follows the constant part of the label key. */
function snapshotterOf(rest: string): string {
  let start = 0;
  while (rest[start] === '.' || rest[start] === '/') start++;
  const end = rest.indexOf('/', start);
  return rest.slice(start, end < 0 ? undefined : end);
}

const OPERATOR_START = '!<>=';

/** Undefined for unknown names, other operators and bad durations. */
function parseTest(text: string): AgeTest | undefined {
  let at = 0;
  while (at < text.length && !OPERATOR_START.includes(text[at] ?? '')) at++;
  const end = text[at + 1] === '=' ? at + 2 : at + 1;
  const operator = text.slice(at, end);
  if (text.slice(0, at) !== 'usedat' || (operator !== '<' && operator !== '>')) return undefined;
  const limit = parseDuration(text.slice(end));
  return limit === undefined ? undefined : { below: operator === '<', limit };
}
