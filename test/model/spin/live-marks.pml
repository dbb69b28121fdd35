/*
 * Live marks in small: what keeps them right beside writers, over one root and three objects.
 *
 * What is modelled: counts that commits change; the lists of states that have a count and are not expanded, that lost a
 * count, and that may be on a cycle, taken up one by one in any order; one node whose list is counted in parts; a trial
 * deletion; slices, which remove what is not expanded once nothing waits. To begin with no state is expanded: the
 * references and the marks are found as after an opening.
 *
 * What is asserted after each step: counts are right (unless a list is half counted); a state that has a count is expanded
 * or waits; when nothing waits, everything reachable is expanded; when nothing is left at all, exactly that is. No slice
 * removes what is reachable.
 *
 * Not modelled: flat references, expiry, trials that are given up, what comes during a run (collection.pml has that).
 *
 * Each macro takes one rule away, and each must yield a counterexample:
 *   NO_REVIVE       a state that gets a count does not wait
 *   NO_CASCADE      what a dead state referred to keeps its count
 *   NO_TRIAL        what lost one of several counts is not looked at
 *   SHALLOW_TRIAL   a trial believes what has a count from outside, and not what that leads to
 *   EDGE_TWICE      a new reference counts twice
 *   NO_ROOT_WEIGHT  a new root does not count
 *   NO_FINISH       a list changes while it is half counted
 *   EARLY_SLICE     a slice does not wait
 */
#define N 4          /* 0 is the root, which stays; the list of 1 is counted in parts */
#ifndef ADDS
#define ADDS 1
#endif
#ifndef DELETIONS
#define DELETIONS 1
#endif
#ifndef SLICES
#define SLICES 1
#endif
#define BIG 1
#define NONE 255

bit present[N], root[N];
bit edge[N * N];             /* from * N + to; the target need not be present */
byte count[N];
bit expanded[N], waiting[N], lost[N], suspect[N];
byte slot = NONE;            /* of the list that is being counted: the next target */
bit adds;                    /* whether it is counted up */
bit reach[N], found[N], alive[N];   /* work space, always cleared after it */
byte within[N];

#define isRevived (slot == NONE && !waiting[0] && !waiting[1] && !waiting[2] && !waiting[3])
#define isUpToDate (isRevived && !lost[0] && !lost[1] && !lost[2] && !lost[3] && \
  !suspect[0] && !suspect[1] && !suspect[2] && !suspect[3])

/* Sets `reach`, by following every reference N - 1 times. */
inline reachability() {
  i = 0;
  do
  :: i < N -> reach[i] = root[i]; i++
  :: else -> break
  od;
  i = 0;
  do
  :: i < (N - 1) * N * N ->
     if
     :: reach[(i / N) % N] && edge[i % (N * N)] -> reach[i % N] = 1
     :: else
     fi;
     i++
  :: else -> break
  od;
  i = 0
}
inline clear() {
  i = 0;
  do
  :: i < N -> reach[i] = 0; found[i] = 0; alive[i] = 0; within[i] = 0; i++
  :: else -> break
  od;
  i = 0
}

inline check() {
  if
  :: slot == NONE ->
     i = 0;
     do
     :: i < N ->
        assert(count[i] == root[i] + (expanded[0] && edge[i]) + (expanded[1] && edge[N + i]) +
          (expanded[2] && edge[2 * N + i]) + (expanded[3] && edge[3 * N + i]));
        assert(count[i] == 0 || expanded[i] || waiting[i]);
        i++
     :: else -> break
     od;
     i = 0
  :: else
  fi;
  if
  :: isRevived ->
     reachability();
     i = 0;
     do
     :: i < N ->
        assert(!reach[i] || expanded[i]);
        assert(reach[i] || !expanded[i] || !isUpToDate);
        i++
     :: else -> break
     od;
     clear()
  :: else
  fi
}

inline add(to) {
  count[to]++;
#ifndef NO_REVIVE
  waiting[to] = !expanded[to];
#endif
  skip
}
inline drop(to) {
  count[to]--;
  lost[to] = 1
}

/* The next part of the list that is being counted. */
inline follow() {
  if
  :: edge[BIG * N + slot] && adds -> add(slot)
  :: edge[BIG * N + slot] && !adds -> drop(slot)
  :: else
  fi;
  slot++;
  if
  :: slot == N -> slot = NONE
  :: else
  fi
}
/* Before the list of a node changes. */
inline finish(from) {
#ifndef NO_FINISH
  do
  :: from == BIG && slot != NONE -> follow()
  :: else -> break
  od;
#endif
  skip
}

inline revive(state) {
  waiting[state] = 0;
  if
  :: count[state] > 0 && !expanded[state] ->
     expanded[state] = 1;
     if
     :: state == BIG -> slot = 0; adds = 1
     :: else ->
        i = 0;
        do
        :: i < N ->
           if
           :: edge[state * N + i] -> add(i)
           :: else
           fi;
           i++
        :: else -> break
        od;
        i = 0
     fi
  :: else
  fi
}

inline lose(state) {
  lost[state] = 0;
  if
  :: expanded[state] && count[state] == 0 ->
     expanded[state] = 0;
#ifndef NO_CASCADE
     if
     :: state == BIG -> slot = 0; adds = 0
     :: else -> dropAll(state)
     fi
#endif
#ifndef NO_TRIAL
  :: expanded[state] && count[state] > 0 && !root[state] -> suspect[state] = 1
#endif
  :: else
  fi
}
inline dropAll(from) {
  i = 0;
  do
  :: i < N ->
     if
     :: edge[from * N + i] -> drop(i)
     :: else
     fi;
     i++
  :: else -> break
  od;
  i = 0
}

/* Trial deletion: what the state leads to, without roots; what has a count from outside of that, and what it leads to, is
   alive; the rest goes. */
inline trial(state) {
  suspect[state] = 0;
  if
  :: expanded[state] && count[state] > 0 && !root[state] ->
     found[state] = 1;
     i = 0;
     do
     :: i < (N - 1) * N * N ->
        if
        :: found[(i / N) % N] && edge[i % (N * N)] && expanded[i % N] && !root[i % N] -> found[i % N] = 1
        :: else
        fi;
        i++
     :: else -> break
     od;
     i = 0;
     do
     :: i < N * N ->
        if
        :: found[i / N] && edge[i] -> within[i % N]++
        :: else
        fi;
        i++
     :: else -> break
     od;
     i = 0;
     do
     :: i < N -> alive[i] = found[i] && count[i] > within[i]; i++
     :: else -> break
     od;
#ifndef SHALLOW_TRIAL
     i = 0;
     do
     :: i < (N - 1) * N * N ->
        if
        :: alive[(i / N) % N] && edge[i % (N * N)] && found[i % N] -> alive[i % N] = 1
        :: else
        fi;
        i++
     :: else -> break
     od;
#endif
     i = 0;
     do
     :: i < N * N ->
        if
        :: found[i / N] && !alive[i / N] && edge[i] -> drop(i % N)
        :: else
        fi;
        i++
     :: else -> break
     od;
     i = 0;
     do
     :: i < N -> expanded[i] = expanded[i] && !(found[i] && !alive[i]); i++
     :: else -> break
     od;
     clear()
  :: else
  fi
}

/* A record goes, with what it refers to. */
inline removeRecord(gone) {
  finish(gone);
  present[gone] = 0;
  if
  :: root[gone] -> root[gone] = 0; drop(gone)
  :: else
  fi;
  if
  :: expanded[gone] -> dropAll(gone)
  :: else
  fi;
  i = 0;
  do
  :: i < N -> edge[gone * N + i] = 0; i++
  :: else -> break
  od;
  i = 0
}

/* What is waiting comes first, then what lost a count, then what may be on a cycle. */
proctype Marker() {
  byte i;
end:
  do
  :: d_step { slot != NONE -> follow(); check() }
  :: d_step { slot == NONE && waiting[0] -> revive(0); check() }
  :: d_step { slot == NONE && waiting[1] -> revive(1); check() }
  :: d_step { slot == NONE && waiting[2] -> revive(2); check() }
  :: d_step { slot == NONE && waiting[3] -> revive(3); check() }
  :: d_step { isRevived && lost[0] -> lose(0); check() }
  :: d_step { isRevived && lost[1] -> lose(1); check() }
  :: d_step { isRevived && lost[2] -> lose(2); check() }
  :: d_step { isRevived && lost[3] -> lose(3); check() }
  :: d_step { isRevived && !lost[0] && !lost[1] && !lost[2] && !lost[3] && suspect[1] -> trial(1); check() }
  :: d_step { isRevived && !lost[0] && !lost[1] && !lost[2] && !lost[3] && suspect[2] -> trial(2); check() }
  :: d_step { isRevived && !lost[0] && !lost[1] && !lost[2] && !lost[3] && suspect[3] -> trial(3); check() }
  od
}

proctype Adder(byte left) {
  byte i, x, y;
  do
  :: left > 0 ->
     atomic {
       left--;
       select (x : 0 .. 3);
       select (y : 1 .. 3);
       if
       :: d_step { present[x] && x != y && !edge[x * N + y] ->
            finish(x);
            edge[x * N + y] = 1;
            if
            :: expanded[x] ->
               add(y);
#ifdef EDGE_TWICE
               add(y)
#endif
            :: else
            fi;
            check()
          }
       :: d_step { x == 0 && present[y] && !root[y] ->
            root[y] = 1;
#ifndef NO_ROOT_WEIGHT
            add(y);
#endif
            check()
          }
       :: d_step { x == 0 && !present[y] -> present[y] = 1; check() }
       :: else
       fi;
       x = 0;
       y = 0
     }
  :: else -> break
  od
}

proctype Deleter(byte left) {
  byte i, x, y;
  do
  :: left > 0 ->
     atomic {
       left--;
       select (x : 0 .. 3);
       select (y : 1 .. 3);
       if
       :: d_step { edge[x * N + y] ->
            finish(x);
            edge[x * N + y] = 0;
            if
            :: expanded[x] -> drop(y)
            :: else
            fi;
            check()
          }
       :: d_step { x == 0 && root[y] -> root[y] = 0; drop(y); check() }
       :: d_step { x == 0 && present[y] -> removeRecord(y); check() }
       :: else
       fi;
       x = 0;
       y = 0
     }
  :: else -> break
  od
}

/* A slice looks at the marks in the step in which it removes. */
#ifdef EARLY_SLICE
#define mayRemove(victim) (present[victim] && !expanded[victim])
#else
#define mayRemove(victim) (isRevived && present[victim] && !expanded[victim])
#endif
inline removeUnreached(victim) {
  reachability();
  assert(!reach[victim]);
  clear();
  removeRecord(victim);
  check()
}
proctype Collector(byte left) {
  byte i;
end:
  do
  :: d_step { left > 0 && mayRemove(1) -> left--; removeUnreached(1) }
  :: d_step { left > 0 && mayRemove(2) -> left--; removeUnreached(2) }
  :: d_step { left > 0 && mayRemove(3) -> left--; removeUnreached(3) }
  od
}

/* Any graph to begin with; a second root or none. */
init {
  byte i;
  atomic {
    present[0] = 1;
    present[1] = 1;
    present[2] = 1;
    present[3] = 1;
    i = 1;
    do
    :: i < N * N ->
       if
       :: i % N != 0 && i / N != i % N -> edge[i] = 1
       :: skip
       fi;
       i++
    :: else -> break
    od;
    i = 0;
    root[0] = 1;
    count[0] = 1;
    waiting[0] = 1;
    if
    :: root[3] = 1; count[3] = 1; waiting[3] = 1
    :: skip
    fi;
    run Marker();
    run Adder(ADDS);
    run Deleter(DELETIONS);
    run Collector(SLICES)
  }
}
