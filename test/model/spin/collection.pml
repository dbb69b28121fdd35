/*
 * The concurrent collection in small: one run beside two writers, over one root and two objects.
 *
 * What is modelled: marking in steps over the live graph; commits that add and remove references and roots, delete
 * records and create them again under the same key; the journal, which is followed inside each commit from the moment
 * marking begins (the write barrier); candidates, slices that check again before they remove; the sweep of the bytes
 * under a guard that a writer of the same object shares from before it looks for the bytes until its record is there.
 *
 * What is asserted: no slice removes a reachable record, nor one that came during the run; no bytes go while a record
 * names them; no record comes without its bytes; no process waits for ever (Spin's check of end states). With -DNO_WRITERS
 * there are no writers, and the run must leave exactly what is reachable.
 *
 * Each macro takes one protection away, and each must yield a counterexample:
 *   NO_BARRIER         the journal is not followed
 *   LATE_JOURNAL       it is followed from the end of marking only
 *   NO_RECHECK         slices remove what was listed without a second check
 *   NO_ALLOCATE_BLACK  objects that came during the run count as candidates
 *   NO_GUARD           the sweep does not wait for writers of the object
 *   NO_SWEEP_RECHECK   the sweep does not check whether a record names the bytes
 */
#define N 3          /* 0 is the root: a container, which is never removed */
#ifndef OPS
#define OPS 1        /* commits of the second writer; the first has two */
#endif
#define HELD 255

bit present[N], root[N];
bit edge[N * N];             /* from * N + to; the target need not be present */
bit marked[N], grey[N], allocatedBlack[N], candidate[N];
bit fresh[N];                /* ghost: came during the run */
bit bytes[N], unnamed[N];    /* bytes in the backend; bytes the sweep must check */
byte guard[N];               /* shares, or HELD */
bit collecting, marking, journal;
bit reach[N];                /* work space of `isReachable`, always cleared after it */

/* What the oracle says: sets `reach`. Two rounds, because no path is longer. */
inline reachability() {
  i = 0;
  do
  :: i < N -> reach[i] = present[i] && (i == 0 || root[i]); i++
  :: else -> break
  od;
  i = 0;
  do
  :: i < 2 * N * N ->
     if
     :: reach[(i / N) % N] && edge[i % (N * N)] -> reach[i % N] = 1
     :: else
     fi;
     i++
  :: else -> break
  od
}
inline forget() {
  i = 0;
  do
  :: i < N -> reach[i] = 0; i++
  :: else -> break
  od;
  i = 0
}

inline shade(node) {
  if
  :: !marked[node] -> marked[node] = 1; grey[node] = 1
  :: else
  fi
}
/* Marks what one grey node refers to. */
inline blacken(from) {
  grey[from] = 0;
  i = 0;
  do
  :: i < N ->
     if
     :: edge[from * N + i] -> shade(i)
     :: else
     fi;
     i++
  :: else -> break
  od;
  i = 0
}
/* After marking there is nobody else to follow what a commit has shaded. */
inline drain() {
  do
  :: !marking && grey[0] -> blacken(0)
  :: !marking && grey[1] -> blacken(1)
  :: !marking && grey[2] -> blacken(2)
  :: else -> break
  od
}

/* A record goes, with what it refers to. A node that nothing refers to goes with it, and so do its marks. */
inline drop(gone) {
  present[gone] = 0;
  root[gone] = 0;
  unnamed[gone] = 1;
  i = 0;
  do
  :: i < N -> edge[gone * N + i] = 0; i++
  :: else -> break
  od;
  i = 0;
  if
  :: !edge[0 * N + gone] && !edge[1 * N + gone] && !edge[2 * N + gone] ->
     marked[gone] = 0; grey[gone] = 0; allocatedBlack[gone] = 0
  :: else
  fi
}

inline addReference(from, to) {
  edge[from * N + to] = 1;
  if
  :: journal && marked[from] -> shade(to); drain()
  :: else
  fi
}

proctype Writer(byte left) {
  byte x, y, i;
  do
  :: left > 0 ->
     left--;
     select (x : 0 .. 2);
     select (y : 1 .. 2);
     if
     :: d_step { present[x] -> addReference(x, y); x = 0; y = 0 }
     :: d_step { edge[x * N + y] -> edge[x * N + y] = 0; x = 0; y = 0 }
     :: d_step { present[y] && !root[y] ->
          root[y] = 1;
          if
          :: journal -> shade(y); drain()
          :: else
          fi;
          x = 0; y = 0
        }
     :: d_step { root[y] -> root[y] = 0; x = 0; y = 0 }
     :: d_step { present[y] -> drop(y); x = 0; y = 0 }
     :: !present[y] ->
        /* A new record: guard, bytes, commit, and only then the guard is let go. */
        d_step { guard[y] != HELD -> guard[y]++ };
        if
        :: bytes[y]              /* they are there: taken over without being sent */
        :: !bytes[y] -> bytes[y] = 1
        fi;
        d_step {
          if
          :: !present[y] ->
             assert(bytes[y]);
             present[y] = 1;
             fresh[y] = collecting;
#ifndef NO_ALLOCATE_BLACK
             allocatedBlack[y] = journal;
#endif
             if
             :: x != 0 && x != y -> addReference(y, x)
             :: else
             fi
          :: else
          fi
        };
        d_step { guard[y]--; x = 0; y = 0 }
     :: x = 0; y = 0
     fi
  :: else -> break
  od;
  skip
}

/* One slice of one candidate: a transaction of its own. */
inline slice(victim) {
  d_step {
    if
#ifdef NO_RECHECK
    :: candidate[victim] && present[victim] ->
#else
    :: candidate[victim] && present[victim] && !marked[victim] && !allocatedBlack[victim] ->
#endif
       reachability();
       assert(!reach[victim]);
       assert(!fresh[victim]);
       forget();
       drop(victim)
    :: else
    fi;
    candidate[victim] = 0
  }
}

inline sweep(swept) {
  if
  :: unnamed[swept] ->
     unnamed[swept] = 0;
#ifndef NO_GUARD
     d_step { guard[swept] == 0 -> guard[swept] = HELD };
#endif
     if
#ifndef NO_SWEEP_RECHECK
     :: present[swept]
#endif
     :: else -> d_step { assert(!present[swept]); bytes[swept] = 0 }
     fi;
#ifndef NO_GUARD
     guard[swept] = 0
#endif
  :: else
  fi
}

proctype Collector() {
  byte i;
  d_step {
    collecting = 1;
    marking = 1;
#if !defined(NO_BARRIER) && !defined(LATE_JOURNAL)
    journal = 1;
#endif
    do
    :: i < N ->
       if
       :: present[i] && (i == 0 || root[i]) -> shade(i)
       :: else
       fi;
       i++
    :: else -> break
    od;
    i = 0
  };
  do
  :: d_step { grey[0] -> blacken(0) }
  :: d_step { grey[1] -> blacken(1) }
  :: d_step { grey[2] -> blacken(2) }
  :: d_step { !grey[0] && !grey[1] && !grey[2] ->
       marking = 0;
#ifndef NO_BARRIER
       journal = 1;
#endif
       i = 1;
       do
       :: i < N -> candidate[i] = present[i] && !marked[i] && !allocatedBlack[i]; i++
       :: else -> break
       od;
       i = 0
     } -> break
  od;
  do
  :: candidate[1] -> slice(1)
  :: candidate[2] -> slice(2)
  :: !candidate[1] && !candidate[2] -> break
  od;
  skip;
  d_step {
    collecting = 0;
    journal = 0;
    do
    :: i < N -> marked[i] = 0; grey[i] = 0; allocatedBlack[i] = 0; fresh[i] = 0; i++
    :: else -> break
    od;
    i = 0
  };
#ifdef NO_WRITERS
  d_step {
    reachability();
    assert((!present[1] || reach[1]) && (!present[2] || reach[2]));
    forget()
  };
#endif
  sweep(1);
  sweep(2);
#ifdef NO_WRITERS
  assert(present[1] == bytes[1] && present[2] == bytes[2]);
#endif
  skip
}

/* Any graph to begin with: every object there or not, every reference there or not. */
init {
  byte i;
  present[0] = 1;
  i = 1;
  do
  :: i < N ->
     if
     :: present[i] = 1; bytes[i] = 1
     :: skip
     fi;
     i++
  :: else -> break
  od;
  i = 1;
  do
  :: i < N * N ->
     if
     :: i % N != 0 && i / N != i % N && present[i / N] -> edge[i] = 1
     :: skip
     fi;
     i++
  :: else -> break
  od;
  i = 0;
  atomic {
    run Collector();
#ifndef NO_WRITERS
    run Writer(2);
    run Writer(OPS)
#endif
  }
}
