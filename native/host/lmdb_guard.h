// Corrects what the addon of the `lmdb` package (3.5.6) does wrong when the disk fails, by intercepting its calls
// to other libraries:
//
// - it prints a line to the standard error of the process for each write of pages that fails; lines are kept here
//   instead
// - it composes a message of up to 129 bytes in a buffer of 100, which ends the process some time later; truncated
//   here
// - when LMDB cannot open a file after the first one, it deletes an object twice; an object deleted while a file is
//   being opened is freed once, after that has ended
// - it cannot open a file without a lock file, which even readers write to; a file that is opened read-only is
//   opened without it, as on a file system that is mounted read-only
// - it maps its lock file and writes to it, which ends the process where the disk has no block for that; the locks of a
//   file that is opened to write are in memory, for the threads of this process (another one may not have it open)
//
// Threads: any. `guardLmdb` redirects the calls of a loaded addon.
#pragma once

#include <string>
#include <vector>

namespace ebbtide {

// Redirects the calls of every loaded addon of LMDB; idempotent. Returns false where that is not possible (not 64
// bit ELF, or the addon is not loaded).
bool guardLmdb();

// The calling thread begins to open a file with LMDB (to write, or without its locks), or has ended that, whatever
// the outcome.
enum class Opening { kNone, kWithLocks, kWithoutLocks };
void openingLmdb(Opening opening);

// Whether `kWithoutLocks` is possible: `guardLmdb` has found how LMDB opens files.
bool opensWithoutLocks();

// Returns the lines kept since the last call, oldest first: 16 at most, later ones are dropped.
std::vector<std::string> takeLmdbLines();

}  // namespace ebbtide
