/**
 * Connections that are open, at most so many. When there is no room, one of those who have the most makes it: of the user
 * with the most connections, of that user's process with the most, the one that has been idle for the longest. Nobody
 * loses a connection to somebody who has more of them, and root finds room wherever others have any. Called by listener.ts.
 */
export interface Entry {
  readonly uid: number;
  readonly pid: number;
  /** When something was last heard of it, on the monotonic clock. */
  heardAt(): number;
  /** Whether calls are open on it. */
  busy(): boolean;
  end(reason: string): void;
}

const ROOT = 0;

export class ConnectionTable {
  readonly #max: number;
  readonly #entries = new Set<Entry>();

  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** False: there is no room for it. */
  add(entry: Entry): boolean {
    if (this.#entries.size >= this.#max && !this.#makeRoom(entry)) return false;
    this.#entries.add(entry);
    return true;
  }

  delete(entry: Entry): void {
    this.#entries.delete(entry);
  }

  #makeRoom(entry: Entry): boolean {
    const all = [...this.#entries];
    const strangers = entry.uid === ROOT ? all.filter(({ uid }) => uid !== ROOT) : [];
    const users = largest(strangers.length > 0 ? strangers : all, ({ uid }) => uid, entry);
    const group = largest(users.members, ({ pid }) => pid, users.own ? entry : undefined);
    const idle = group.members.filter((other) => !other.busy());
    // A call under way is ended for somebody who has less than its client, and for nobody else.
    const some = idle.length > 0 || (users.own && group.own) ? idle : group.members;
    const [first] = some.sort((a, b) => a.heardAt() - b.heardAt());
    if (first === undefined) return false;
    this.#entries.delete(first);
    first.end('room for others');
    return true;
  }
}

/** The largest group, counting the newcomer to its own, which is named last where there are several. */
function largest(
  entries: readonly Entry[],
  keyOf: (entry: Entry) => number,
  newcomer: Entry | undefined,
): { members: Entry[]; own: boolean } {
  const groups = new Map<number, Entry[]>();
  for (const entry of entries) {
    const key = keyOf(entry);
    const members = groups.get(key);
    if (members === undefined) groups.set(key, [entry]);
    else members.push(entry);
  }
  const ownKey = newcomer && keyOf(newcomer);
  let found: { members: Entry[]; own: boolean; size: number } = { members: [], own: false, size: 0 };
  for (const [key, members] of groups) {
    const own = key === ownKey;
    const size = members.length + (own ? 1 : 0);
    if (size > found.size) found = { members, own, size };
  }
  return found;
}
