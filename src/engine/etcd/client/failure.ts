/**
 * Failures of etcd calls as error kinds of this package, with what the engine needs to know of them. Called by
 * client.ts. The texts are etcd's own; credentials never are part of one.
 */
import { EbbtideError, type ErrorKind } from '../../../errors.js';

/** A call to etcd that failed. */
export class EtcdFailure extends EbbtideError {
  /** The call may have taken effect all the same. */
  readonly ambiguous: boolean;
  /** etcd does not have the revision asked for: compacted, or it was set back to an earlier state. */
  readonly lacksRevision: boolean;
  /** Another member may do better. */
  readonly elsewhere: boolean;

  constructor(
    kind: ErrorKind,
    message: string,
    traits: Partial<FailureTraits> & { remedy?: string | undefined },
  ) {
    super(kind, message, { remedy: traits.remedy });
    this.ambiguous = traits.ambiguous ?? false;
    this.lacksRevision = traits.lacksRevision ?? false;
    this.elsewhere = traits.elsewhere ?? false;
  }
}

interface FailureTraits {
  ambiguous: boolean;
  lacksRevision: boolean;
  elsewhere: boolean;
}

interface Rule extends Partial<FailureTraits> {
  match: RegExp;
  kind: ErrorKind;
  text?: string;
  remedy?: string;
}

/** First match wins; what none matches is `Unavailable` and ambiguous, the safe reading of a lost response. */
const rules: readonly Rule[] = [
  {
    match: /required revision has been compacted/,
    kind: 'FailedPrecondition',
    lacksRevision: true,
    remedy: 'read the current revision',
  },
  {
    match: /required revision is a future revision/,
    kind: 'FailedPrecondition',
    lacksRevision: true,
    // A member that is behind lacks what the others have.
    elsewhere: true,
    remedy: 'read a revision that exists',
  },
  {
    match: /database space exceeded/,
    kind: 'Unavailable',
    text: 'etcd is out of space (its NOSPACE alarm is set) and takes no writes',
    remedy: 'compact and defragment etcd or raise its quota, then disarm the alarm',
  },
  {
    match: /request is too large|larger than max/,
    kind: 'InvalidArgument',
    text: 'the request is larger than etcd takes',
    remedy:
      'make what is written smaller, or start etcd with the default --max-request-bytes (1.5 MiB) or more',
  },
  {
    match: /too many operations/,
    kind: 'InvalidArgument',
    text: 'etcd takes fewer operations in a transaction than by its defaults',
    remedy: 'start etcd with the default --max-txn-ops (128) or more',
  },
  { match: /duplicate key given/, kind: 'Unknown' },
  { match: /requested lease not found/, kind: 'NotFound' },
  {
    match: /authentication failed|invalid auth token|user name is empty/,
    kind: 'FailedPrecondition',
    text: 'etcd refused the user name or password',
    remedy: 'check username and password',
  },
  {
    match: /permission denied/,
    kind: 'FailedPrecondition',
    text: "etcd refused: the user has no permission for the tree's prefix",
    remedy: 'grant the user read and write on the prefix',
  },
  {
    match: /client was already closed/,
    kind: 'FailedPrecondition',
    text: 'the store is closed',
    remedy: 'open it again',
  },
];

export function etcdFailure(error: unknown, doing: string): EtcdFailure {
  if (error instanceof EtcdFailure) return error;
  const text = (error instanceof Error ? error.message : String(error)).replace(/^\d+ [A-Z_]+: /, '');
  const rule = rules.find(({ match }) => match.test(text));
  if (rule !== undefined) {
    return new EtcdFailure(rule.kind, `cannot ${doing}: ${rule.text ?? text}`, rule);
  }
  return new EtcdFailure('Unavailable', `cannot ${doing}: ${firstLine(text)}`, {
    ambiguous: true,
    elsewhere: true,
    remedy: 'check that etcd is running, reachable and has a leader',
  });
}

const firstLine = (text: string): string => (text.split('\n', 1)[0] ?? '').slice(0, 300);
