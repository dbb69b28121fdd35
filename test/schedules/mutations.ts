/** The protections that a schedule can run without. Each is taken away from outside, by wrapping (life.ts). */
const writersMutations = [
  /** What is committed during a run changes no mark. */
  'no-barrier',
  /** The journal is followed from the end of marking instead of its beginning. */
  'late-journal',
  /** Slices remove what was listed, without a second check. */
  'no-recheck',
  /** Conditions and collectors are asked once, before the first slice. */
  'no-refollow',
  /** Backend sweeps take guards that no writer knows of. */
  'no-guards',
  /** Bytes go without waiting until the removal of their records is on disk. */
  'no-flush',
  /** Backend sweeps do not ask whether a record names the item. */
  'no-sweep-recheck',
  /** What is referred to again stays dead. */
  'live-no-revive',
  /** What a dead node referred to keeps its count. */
  'live-no-cascade',
  /** A cycle that lost what kept it is not tried. */
  'live-no-trial',
  /** A new edge counts twice. */
  'live-edge-twice',
  /** A node that becomes a root has no count for it. */
  'live-no-root-weight',
] as const;

/** The others concern the environment: these schedules always have one. */
export const environmentMutations = [
  /** The time of expiries never goes back. */
  'monotonic-expiry',
  /** What expired through a forward step is expired at once. */
  'no-grace',
  /** The clocks are looked at by collections only. */
  'no-glance',
  /** A step is stored by collections only, not with the first change after it. */
  'no-step-with-change',
  /** A run goes on when the wall clock is set to before its moment. */
  'no-clock-recheck',
  /** A start after a crash is taken for one after a clean close. */
  'no-walk-after-crash',
  /** What no record names goes, also when all records are lost. */
  'no-orphan-guard',
  /** A backend's flag is lowered after a sweep, whatever was removed meanwhile. */
  'no-flag-compare',
  /** A failed sweep lowers the flag like one that succeeded. */
  'no-flag-after-failure',
] as const;
export const mutations = [...writersMutations, ...environmentMutations] as const;
export type Mutation = (typeof mutations)[number];
