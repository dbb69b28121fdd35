/**
 * A policy: rules that say which roots may be retired, and how much space is wanted. Read from a JSON document; called by
 * db.ts, the daemon and the command line. InvalidArgument names the rule and the field. docs/policies.md describes it;
 * `policy` in docs/ebbtide.schema.json is its schema.
 */
import { type EbbtideError, failedPrecondition, invalidArgument } from '../errors.js';
import { type RetirableKind, retirableKinds } from '../gc/report/plan.js';
import { requireMeaning } from '../model/filters.js';
import { parseSize } from '../model/size.js';
import { parseDuration } from '../model/time.js';

/** Bytes, a size like `500M` or `10GB` (powers of 1024), or a share of the file system like `15%`. */
export type Amount = number | string;

/** Which roots may be retired, and for how much space. */
export interface PolicyRule {
  /** In plans and messages; default `rule N`. */
  name?: string;
  /** What it covers; default images. */
  kinds?: RetirableKind[];
  /** Default all. */
  namespaces?: string[];
  /** Roots that match one of these, by the fields of their kind's list; default all. */
  filters?: string[];
  /** With containers: which of them are stopped. The store does not know. */
  stopped?: string[];
  /** A root that was used within this time stays: `48h`. */
  keepDuration?: string;
  /** So many images of each repository stay: those that were made or moved last. */
  keepLast?: number;
  /** Images with such a tag stay; `*` stands for any characters. `true`: those with any tag. */
  keepTagged?: true | string[];
  /** So much of the store always stays. */
  reservedSpace?: Amount;
  /** The store may have so much: beyond that, roots are retired. */
  maxUsedSpace?: Amount;
  /** So much of the file system is to be free. */
  minFreeSpace?: Amount;
}

/** Rules that retire what was not used for longest. */
export interface Policy {
  /** For editors. */
  $schema?: string;
  /** In the order in which they are applied; 1 to 64. */
  rules: PolicyRule[];
  /** How often the daemon applies it; default `10m`. */
  every?: string;
  /** The daemon applies it only while so much of the file system is in use. */
  highWater?: Amount;
  /** How far rules that say nothing of space go: until no more of the file system is in use. */
  lowWater?: Amount;
}

/** A rule with all that is said in a form to work with. */
export interface Rule {
  readonly name: string;
  readonly kinds: readonly RetirableKind[];
  readonly namespaces: readonly string[] | undefined;
  readonly filters: readonly string[];
  readonly stopped: readonly string[];
  /** Nanoseconds. */
  readonly keepDuration: bigint;
  readonly keepLast: number;
  readonly isKeptTag: (tag: string) => boolean;
  readonly reservedSpace: Size | undefined;
  readonly maxUsedSpace: Size | undefined;
  readonly minFreeSpace: Size | undefined;
}

export interface CheckedPolicy {
  readonly rules: readonly Rule[];
  readonly everyMs: number;
  readonly highWater: Size | undefined;
  readonly lowWater: Size | undefined;
}

/** Bytes, or a share of a file system. */
export type Size = { readonly bytes: number } | { readonly share: number };

/**
 * Of a file system of `total` bytes. FailedPrecondition: a share of one that says no size, as a tmpfs without a limit does. As 0
 * bytes it would be a wish for all there is.
 */
export function bytesOf(size: Size, total: number): number {
  if ('bytes' in size) return size.bytes;
  if (total > 0) return Math.floor(size.share * total);
  throw failedPrecondition(
    `the file system does not say how large it is: ${size.share * 100}% of it is no size`,
    {
      remedy: 'use reservedSpace and maxUsedSpace in bytes',
    },
  );
}

const RULES_MAX = 64;
const EVERY_MS = 600_000;
/** More often would only cost. */
const EVERY_MIN_MS = 1000;
const NANOS_PER_MILLI = 1e6;

type Fields = Readonly<Record<string, unknown>>;
type Read<T> = (value: unknown) => T | undefined;

const ruleFields = [
  'name',
  'kinds',
  'namespaces',
  'filters',
  'stopped',
  'keepDuration',
  'keepLast',
  'keepTagged',
  'reservedSpace',
  'maxUsedSpace',
  'minFreeSpace',
] as const satisfies readonly (keyof PolicyRule)[];
const policyFields = [
  '$schema',
  'rules',
  'every',
  'highWater',
  'lowWater',
] as const satisfies readonly (keyof Policy)[];

/** InvalidArgument, with rule and field, for what is not a policy. */
export function parsePolicy(document: unknown): CheckedPolicy {
  if (!isObject(document)) throw invalidArgument('a policy is a JSON object', { remedy: SEE });
  const policy = new FieldReader('the policy', document, policyFields);
  const { rules } = document;
  if (!Array.isArray(rules) || rules.length === 0 || rules.length > RULES_MAX)
    throw policy.wrong('rules', `a list of 1 to ${RULES_MAX} rules`);
  const highWater = policy.optional('highWater', size, AMOUNT);
  const lowWater = policy.optional('lowWater', size, AMOUNT);
  if (highWater !== undefined && lowWater === undefined)
    throw policy.wrong('lowWater', 'given with highWater');
  if (isAbove(lowWater, highWater)) throw policy.wrong('lowWater', 'below highWater');
  return {
    rules: rules.map((rule, n) => ruleOf(rule, n)),
    everyMs: policy.optional('every', every, 'a duration like 10m, 1s or more') ?? EVERY_MS,
    highWater,
    lowWater,
  };
}

/** Whether that can be said without a disk. */
function isAbove(low: Size | undefined, high: Size | undefined): boolean {
  if (low === undefined || high === undefined) return false;
  if ('bytes' in low && 'bytes' in high) return low.bytes > high.bytes;
  return 'share' in low && 'share' in high && low.share > high.share;
}

const SEE = 'docs/policies.md describes policies';
const AMOUNT = 'bytes, a size like 10G, or a share like 15%';
/** Each root is compared with all of a list: who sends a policy must not choose what that costs. */
const TEXTS_MAX = 64;
const TEXT_MAX = 1024;
const TEXTS = `a list of texts, ${TEXTS_MAX} at most, of ${TEXT_MAX} characters at most`;

/** What filters of a kind's list know: the stores' adaptors. */
const FILTERED: Readonly<Record<RetirableKind, readonly (readonly string[])[]>> = {
  image: [['name'], ['target', 'digest'], ['target', 'mediatype'], ['labels'], ['annotations']],
  lease: [['id'], ['labels']],
  container: [['id'], ['image'], ['runtime', 'name'], ['labels']],
};

function ruleOf(document: unknown, n: number): Rule {
  const about = `rule ${n + 1}`;
  if (!isObject(document))
    throw invalidArgument(`${about} of the policy is not a JSON object`, { remedy: SEE });
  const given = text(document.name);
  const rule = new FieldReader(given === undefined ? about : `${about} "${given}"`, document, ruleFields);
  const covered: readonly RetirableKind[] = rule.optional(
    'kinds',
    kinds,
    `a list of ${retirableKinds.join(', ')}`,
  ) ?? ['image'];
  const read: Rule = {
    name: rule.optional('name', text, 'a text') ?? about,
    kinds: covered,
    namespaces: rule.optional('namespaces', someTexts, `${TEXTS}, and not empty`),
    filters: rule.filters('filters', covered),
    stopped: rule.filters('stopped', ['container']),
    keepDuration: rule.optional('keepDuration', duration, 'a duration like 48h') ?? 0n,
    keepLast: rule.optional('keepLast', count, 'a whole number, 0 or more') ?? 0,
    isKeptTag: rule.optional('keepTagged', tags, 'true or a list of tags') ?? (() => false),
    reservedSpace: rule.optional('reservedSpace', size, AMOUNT),
    maxUsedSpace: rule.optional('maxUsedSpace', size, AMOUNT),
    minFreeSpace: rule.optional('minFreeSpace', size, AMOUNT),
  };
  if (read.kinds.includes('container') && read.stopped.length === 0)
    throw rule.wrong('stopped', 'given where kinds has containers: filters for those that are stopped');
  if (read.kinds.includes('lease') && read.keepDuration === 0n)
    throw rule.wrong('keepDuration', 'given where kinds has leases: a young lease is somebody at work');
  return read;
}

class FieldReader {
  readonly #about: string;
  readonly #fields: Fields;

  /** InvalidArgument for a field that is not known. */
  constructor(about: string, fields: Fields, known: readonly string[]) {
    this.#about = about;
    this.#fields = fields;
    for (const name of Object.keys(fields)) {
      if (known.includes(name)) continue;
      throw invalidArgument(`${about} has an unknown field "${name}"`, {
        object: name,
        remedy: `known: ${known.join(', ')}`,
      });
    }
  }

  optional<T>(name: string, read: Read<T>, what: string): T | undefined {
    const value = this.#fields[name];
    if (value === undefined) return undefined;
    const result = read(value);
    if (result === undefined) throw this.wrong(name, what);
    return result;
  }

  /** A mistake in them must not make a rule that covers nothing, or everything. */
  filters(name: string, kinds: readonly RetirableKind[]): readonly string[] {
    const filters = this.optional(name, texts, TEXTS) ?? [];
    try {
      requireMeaning(
        filters,
        kinds.flatMap((kind) => FILTERED[kind]),
      );
    } catch (error) {
      throw invalidArgument(`${this.#about}: ${name}: ${(error as Error).message}`, {
        object: name,
        cause: error,
        remedy: SEE,
      });
    }
    return filters;
  }

  wrong(name: string, what: string): EbbtideError {
    return invalidArgument(`${this.#about}: ${name} must be ${what}`, { object: name, remedy: SEE });
  }
}

const isObject = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const text: Read<string> = (value) =>
  typeof value === 'string' && value !== '' && value.length <= TEXT_MAX ? value : undefined;

const texts: Read<string[]> = (value) =>
  Array.isArray(value) && value.length <= TEXTS_MAX && value.every((one) => text(one) !== undefined)
    ? value
    : undefined;

const someTexts: Read<string[]> = (value) => (texts(value)?.length === 0 ? undefined : texts(value));

const kinds: Read<RetirableKind[]> = (value) =>
  someTexts(value)?.every((one) => (retirableKinds as readonly string[]).includes(one)) === true
    ? (value as RetirableKind[])
    : undefined;

const duration: Read<bigint> = (value) => {
  const nanos = typeof value === 'string' ? parseDuration(value) : undefined;
  return nanos === undefined || nanos < 0n ? undefined : nanos;
};

const every: Read<number> = (value) => {
  const ms = Math.floor(Number(duration(value) ?? 0n) / NANOS_PER_MILLI);
  return ms >= EVERY_MIN_MS ? ms : undefined;
};

const count: Read<number> = (value) =>
  typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? value : undefined;

const size: Read<Size> = (value) => {
  if (typeof value === 'number') return count(value) === undefined ? undefined : { bytes: value };
  if (typeof value !== 'string') return undefined;
  const share = /^(\d+(?:\.\d+)?)%$/.exec(value);
  if (share !== null) return Number(share[1]) <= 100 ? { share: Number(share[1]) / 100 } : undefined;
  const bytes = parseSize(value);
  return bytes === undefined ? undefined : { bytes };
};

const tags: Read<(tag: string) => boolean> = (value) => {
  if (value === true) return (tag) => tag !== '';
  const patterns = texts(value);
  if (patterns === undefined) return undefined;
  return (tag) => patterns.some((pattern) => isLike(tag, pattern));
};

/** Whether the text is the pattern, in which `*` stands for any characters. Linear in both. */
function isLike(name: string, pattern: string): boolean {
  const [first = '', ...parts] = pattern.split('*');
  if (parts.length === 0) return name === pattern;
  const last = parts.pop() ?? '';
  if (!name.startsWith(first)) return false;
  let at = first.length;
  for (const part of parts) {
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return name.length - last.length >= at && name.endsWith(last);
}
