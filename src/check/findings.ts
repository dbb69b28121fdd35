/** What a check can find, and what it comes to. Plain data: it travels to clients as JSON. Called by the files of check/. */

export const findingKinds = [
  /** A record without its file. */
  'blob-missing',
  /** A file that is longer or shorter than its record says. */
  'blob-size',
  /** A file whose bytes have another digest (only looked for on request). */
  'blob-digest',
  /** Something that is not a regular file in a blob's place. */
  'blob-no-file',
  /** A record without a size, or under a key that is not a digest. */
  'blob-record',
  /** A file without a record: the next full collection takes it. */
  'blob-orphan',
  /** An ingest directory that no ref can open. */
  'ingest-damaged',
  /** An ingest without a record. */
  'ingest-orphan',
  /** A record whose snapshot the snapshotter does not have. */
  'snapshot-missing',
  /** A record whose parent is missing, or is another one than the snapshotter says. */
  'snapshot-parent',
  /** A snapshot of a snapshotter whose directory is missing. */
  'snapshot-directory',
  /** A snapshot of a snapshotter without a record. */
  'snapshot-orphan',
  /** A directory in a snapshotter that belongs to no snapshot. */
  'directory-orphan',
  /** The record of a mount that is not there. */
  'mount-missing',
  /** A directory of mounts without a record. */
  'mount-orphan',
  /** A layer's archive that cannot be read, or is not the one that its config names (of what is in snapshots: only looked for on request). */
  'layer-archive',
  /** A file of a snapshot that its layer has and that is not there, or is of another type, size or mode. */
  'file-missing',
  'file-type',
  'file-size',
  'file-mode',
  /** The graph of references differs from the records. */
  'graph',
] as const;
/** One of `findingKinds`; docs/cli.md describes them. */
export type FindingKind = (typeof findingKinds)[number];

/** What is damaged loses data or is wrong; a leftover only takes room. */
export type Severity = 'damage' | 'leftover';

const leftovers: ReadonlySet<FindingKind> = new Set([
  'blob-orphan',
  'ingest-damaged',
  'ingest-orphan',
  'snapshot-orphan',
  'directory-orphan',
  'mount-missing',
  'mount-orphan',
]);
const severityOf = (kind: FindingKind): Severity => (leftovers.has(kind) ? 'leftover' : 'damage');

/** Something that is not as the records say. */
export interface Finding {
  /** What is wrong. */
  kind: FindingKind;
  /** Whether it is damage, or only left over. */
  severity: Severity;
  /** A digest, an ingest's backend ref, a snapshot's key or backend name, a directory, a node of the graph. */
  object: string;
  /** Where it has one. */
  namespace?: string | undefined;
  /** Of a snapshot. */
  snapshotter?: string | undefined;
  /** The file or directory. */
  path?: string | undefined;
  /** What the records say. */
  expected?: string | undefined;
  /** What is there. */
  found?: string | undefined;
  /** What to do about it: one sentence. */
  remedy: string;
  /** What `repair` did about it. */
  repaired?: string | undefined;
}

/** What a check has found. */
export interface CheckReport {
  /** No damage. Leftovers may be there. */
  sound: boolean;
  /** Findings that are damage. */
  damaged: number;
  /** Findings that a full collection removes. */
  leftovers: number;
  /** Files that were moved away. */
  repaired: number;
  /** Findings by kind. */
  counts: Partial<Record<FindingKind, number>>;
  /** The first ones, `MAX_KEPT` at most; all of them go to `onFinding`. */
  findings: Finding[];
  /** How many of each were compared. */
  checked: {
    /** Records of blobs, and of snapshots. */
    blobs: number;
    snapshots: number;
    /** Files of blobs, and ingests. */
    files: number;
    ingests: number;
    /** Snapshots that were compared with the archives of their layers, and entries of these. */
    layers: number;
    layerEntries: number;
    /** Bytes that were read for their digests. */
    hashedBytes: number;
    /** Of these files and layers, those that an earlier run found sound. */
    earlier: number;
  };
  /** Records of what only other hosts of a tree shared over etcd have. */
  elsewhere: number;
  /** Whether the graph was compared, and why not. */
  graph: string;
}

/** Findings kept for the report. */
export const MAX_KEPT = 1000;

/** Takes findings in: counts them, keeps the first, passes each on. */
export class Findings {
  readonly report: CheckReport = {
    sound: true,
    damaged: 0,
    leftovers: 0,
    repaired: 0,
    counts: {},
    findings: [],
    checked: {
      blobs: 0,
      snapshots: 0,
      files: 0,
      ingests: 0,
      layers: 0,
      layerEntries: 0,
      hashedBytes: 0,
      earlier: 0,
    },
    elsewhere: 0,
    graph: 'not compared',
  };
  readonly #onFinding: ((finding: Finding) => Promise<void> | void) | undefined;

  constructor(onFinding: ((finding: Finding) => Promise<void> | void) | undefined) {
    this.#onFinding = onFinding;
  }

  async add(found: Omit<Finding, 'severity'>): Promise<void> {
    const finding = { ...found, severity: severityOf(found.kind) };
    const { report } = this;
    if (finding.severity === 'damage') {
      report.damaged++;
      report.sound = false;
    } else report.leftovers++;
    if (finding.repaired !== undefined) report.repaired++;
    report.counts[finding.kind] = (report.counts[finding.kind] ?? 0) + 1;
    if (report.findings.length < MAX_KEPT) report.findings.push(finding);
    await this.#onFinding?.(finding);
  }
}
