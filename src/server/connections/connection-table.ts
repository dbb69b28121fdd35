/**
 * Open connections, up to a limit. At the limit a connection is evicted: from the user with the most
 * connections, from that user's process with the most, the one that has been idle the longest. No client loses a
 * connection to a client that has more of them, and root finds room wherever others have any. Called by
 * listener.ts.
 */
export interface Entry {
  readonly uid: number;
  readonly pid: number;
  /** When it last received something, on the monotonic clock. */
  heardAt(): number;
  /** Whether it has open calls. */
  busy(): boolean;
  end(reason: string): void;
}

const ROOT = 0;

/** Connections of one user, by process. */
interface User {
  size: number;
  readonly processes: Map<number, Set<Entry>>;
}

export class ConnectionTable {
  readonly #max: number;
  readonly #users = new Map<number, User>();
  #size = 0;

  constructor(max: number) {
    this.#max = max;
  }

  get size(): number {
    return this.#size;
  }

  /**
   * Returns false if there is no room, or if room would cost a connection of the same process and `evenOwn`
   * is false.
   */
  add(entry: Entry, evenOwn = true): boolean {
    if (this.#size >= this.#max && !this.#makeRoom(entry, evenOwn)) return false;
    const user = entryOf(this.#users, entry.uid, () => ({ size: 0, processes: new Map() }));
    entryOf(user.processes, entry.pid, () => new Set<Entry>()).add(entry);
    user.size++;
    this.#size++;
    return true;
  }

  delete(entry: Entry): void {
    const user = this.#users.get(entry.uid);
    const process = user?.processes.get(entry.pid);
    if (user === undefined || process?.delete(entry) !== true) return;
    this.#size--;
    if (process.size === 0) user.processes.delete(entry.pid);
    if (--user.size === 0) this.#users.delete(entry.uid);
  }

  #makeRoom(newcomer: Entry, evenOwn: boolean): boolean {
    const user = largest(this.#users, newcomer.uid, newcomer.uid === ROOT && this.#users.size > 1);
    const own = user?.key === newcomer.uid;
    const process = user && largest(user.group.processes, own ? newcomer.pid : undefined, false);
    const ownProcess = own && process?.key === newcomer.pid;
    if (process === undefined || (ownProcess && !evenOwn)) return false;
    const found = leaving(process.group, !ownProcess);
    if (found === undefined) return false;
    this.delete(found);
    found.end('room for others');
    return true;
  }
}

/**
 * The connection to evict: the one idle the longest. If none is idle, and a call under way may be ended
 * because the newcomer's client has less, the one that has been silent the longest.
 */
function leaving(entries: Iterable<Entry>, evenBusy: boolean): Entry | undefined {
  let idle: Entry | undefined;
  let busy: Entry | undefined;
  for (const entry of entries) {
    if (entry.busy()) busy = older(busy, entry);
    else idle = older(idle, entry);
  }
  return idle ?? (evenBusy ? busy : undefined);
}

const older = (a: Entry | undefined, b: Entry): Entry =>
  a !== undefined && a.heardAt() <= b.heardAt() ? a : b;

/** The largest group; the newcomer counts towards its own group, or that group is left out. */
function largest<Group extends { readonly size: number }>(
  groups: ReadonlyMap<number, Group>,
  own: number | undefined,
  others: boolean,
): { key: number; group: Group } | undefined {
  let found: { key: number; group: Group } | undefined;
  let most = -1;
  for (const [key, group] of groups) {
    if (others && key === own) continue;
    const counted = group.size + (key === own ? 1 : 0);
    if (counted > most) [found, most] = [{ key, group }, counted];
  }
  return found;
}

function entryOf<Value>(map: Map<number, Value>, key: number, make: () => Value): Value {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
