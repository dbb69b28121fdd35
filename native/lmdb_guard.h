// What the addon of the `lmdb` package (3.5.6) does wrong when the disk fails, put right at its calls to other libraries:
//
// - it prints a line to the standard error of the process for each write of pages that fails; lines are kept here instead
// - it composes a message of up to 129 bytes in a buffer of 100, which ends the process some time later; cut here
// - when LMDB cannot open a file after the first one, it deletes an object twice; an object deleted while a file is being
//   opened is freed when that has ended, once
// - it cannot open a file without the file of its locks, which even readers write to; a file that is opened only to be read
//   goes without, as on a file system that is mounted read-only
//
// Threads: any. The calls of an addon that is loaded are led here by `guardLmdb`.
#pragma once

#include <string>
#include <vector>

namespace ebbtide {

// Leads the calls of every loaded addon of LMDB here; again: nothing. False where that is not possible (not 64 bit ELF, or
// the addon is not loaded).
bool guardLmdb();

// What the calling thread does: begin to open a file with LMDB (to write, or without its locks), or have ended that, whatever
// the outcome.
enum class Opening { kNone, kWithLocks, kWithoutLocks };
void openingLmdb(Opening opening);

// Whether `kWithoutLocks` is possible: `guardLmdb` has found how LMDB opens files.
bool opensWithoutLocks();

// Takes the lines kept since the last time, oldest first: 16 at most, later ones are dropped.
std::vector<std::string> takeLmdbLines();

}  // namespace ebbtide
