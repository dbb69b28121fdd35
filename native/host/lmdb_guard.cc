#include "host/lmdb_guard.h"

#include <elf.h>
#include <fcntl.h>
#include <link.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <new>

namespace ebbtide {
namespace {

constexpr size_t kLinesMax = 16;
constexpr size_t kLineBytesMax = 400;
// What LMDB maps of its locks, at most.
constexpr off_t kLockBytes = 16 * 1024;
// The size of LMDB's message buffer.
constexpr size_t kMessageBytes = 100;

std::mutex mutex;
std::vector<std::string> lines;

void keep(const char* format, va_list arguments) {
  char line[kLineBytesMax];
  const int size = vsnprintf(line, sizeof line, format, arguments);
  const std::lock_guard<std::mutex> guard(mutex);
  if (size > 0 && lines.size() < kLinesMax) lines.emplace_back(line);
}

int printLine(FILE* to, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int result = 0;
  if (to == stderr) {
    keep(format, arguments);
  } else {
    result = vfprintf(to, format, arguments);
  }
  va_end(arguments);
  return result;
}

// The one message that can exceed its buffer; the others go to their usual destination.
bool isTooLong(const char* format) {
  static const char beginning[] = "Attempting to write page";
  return strncmp(format, beginning, sizeof beginning - 1) == 0;
}

int printMessage(char* to, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  const int result = isTooLong(format) ? vsnprintf(to, kMessageBytes, format, arguments) : vsprintf(to, format, arguments);
  va_end(arguments);
  return result;
}

thread_local Opening current = Opening::kNone;
thread_local std::vector<void*> deleted;

void deleteObject(void* object) {
  if (current != Opening::kNone) {
    deleted.push_back(object);
  } else {
    ::operator delete(object);
  }
}

void deleteSized(void* object, size_t) { deleteObject(object); }

std::atomic<bool> isOpenReplaced{false};

bool endsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// Before it opens its locks, LMDB opens the file once more, as if to write, and closes it again: by its identity it
// finds what this process has open already. A reader must not get what an owner in this process has, and the other
// way round, so it gets an identity of its own here.
int openWithoutLocks(const char* path, int flags) {
  if (endsWith(path, "-lock")) {
    errno = EROFS;
    return -1;
  }
  if ((flags & O_CREAT) != 0) return memfd_create("ebbtide-reader", MFD_CLOEXEC);
  return open(path, flags | O_CLOEXEC);
}

int openFile(const char* path, int flags, ...) {
  if (current == Opening::kWithoutLocks) return openWithoutLocks(path, flags);
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  if (current != Opening::kWithLocks || !endsWith(path, "-lock")) return open(path, flags, mode);
  const int inMemory = memfd_create("ebbtide-locks", MFD_CLOEXEC);
  if (inMemory >= 0) return inMemory;
  // A filter of system calls may refuse it. Then the file has its blocks before it is mapped; who can read it can lock it.
  const int onDisk = open(path, flags, mode & 0600);
  if (onDisk >= 0 && posix_fallocate(onDisk, 0, kLockBytes) == ENOSPC) {
    close(onDisk);
    errno = ENOSPC;
    return -1;
  }
  return onDisk;
}

#if defined(__LP64__) && (defined(__x86_64__) || defined(__aarch64__))

void* replacementFor(const char* name) {
  if (strcmp(name, "_ZdlPv") == 0) return reinterpret_cast<void*>(&deleteObject);
  if (strcmp(name, "_ZdlPvm") == 0) return reinterpret_cast<void*>(&deleteSized);
  if (strcmp(name, "open") == 0 || strcmp(name, "open64") == 0) return reinterpret_cast<void*>(&openFile);
  if (strcmp(name, "fprintf") == 0) return reinterpret_cast<void*>(&printLine);
  if (strcmp(name, "sprintf") == 0) return reinterpret_cast<void*>(&printMessage);
  return nullptr;
}

bool isLmdb(const char* path) {
  const char* name = strrchr(path, '/');
  const size_t size = strlen(path);
  return name != nullptr && strstr(path, "lmdb") != nullptr && size > 5 && strcmp(path + size - 5, ".node") == 0;
}

bool replace(void** place, void* by) {
  if (*place == by) return true;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t start = reinterpret_cast<uintptr_t>(place) & ~(page - 1);
  // The table may have been made read-only when the addon was loaded.
  if (mprotect(reinterpret_cast<void*>(start), page, PROT_READ | PROT_WRITE) != 0) return false;
  __atomic_store_n(place, by, __ATOMIC_RELEASE);
  return true;
}

// The table (GOT) through which an object calls functions of other objects.
struct CallTable {
  const ElfW(Rela)* entries = nullptr;
  size_t bytes = 0;
  const ElfW(Sym)* symbols = nullptr;
  const char* names = nullptr;
};

CallTable callTableOf(const dl_phdr_info& object) {
  CallTable table;
  for (int i = 0; i < object.dlpi_phnum; i++) {
    if (object.dlpi_phdr[i].p_type != PT_DYNAMIC) continue;
    const auto* entry = reinterpret_cast<const ElfW(Dyn)*>(object.dlpi_addr + object.dlpi_phdr[i].p_vaddr);
    for (; entry->d_tag != DT_NULL; entry++) {
      // Some C libraries do not relocate the addresses in the dynamic section.
      const uintptr_t at = entry->d_un.d_ptr < object.dlpi_addr ? object.dlpi_addr + entry->d_un.d_ptr : entry->d_un.d_ptr;
      if (entry->d_tag == DT_JMPREL) table.entries = reinterpret_cast<const ElfW(Rela)*>(at);
      if (entry->d_tag == DT_SYMTAB) table.symbols = reinterpret_cast<const ElfW(Sym)*>(at);
      if (entry->d_tag == DT_STRTAB) table.names = reinterpret_cast<const char*>(at);
      if (entry->d_tag == DT_PLTRELSZ) table.bytes = entry->d_un.d_val;
    }
  }
  return table;
}

int guardObject(dl_phdr_info* object, size_t, void* guarded) {
  if (object->dlpi_name == nullptr || !isLmdb(object->dlpi_name)) return 0;
  const CallTable table = callTableOf(*object);
  if (table.entries == nullptr || table.symbols == nullptr || table.names == nullptr) return 0;
  for (size_t i = 0; i < table.bytes / sizeof(ElfW(Rela)); i++) {
    const ElfW(Rela)& entry = table.entries[i];
    void* by = replacementFor(table.names + table.symbols[ELF64_R_SYM(entry.r_info)].st_name);
    if (by == nullptr) continue;
    if (!replace(reinterpret_cast<void**>(object->dlpi_addr + entry.r_offset), by)) continue;
    *static_cast<bool*>(guarded) = true;
    if (by == reinterpret_cast<void*>(&openFile)) isOpenReplaced = true;
  }
  return 0;
}

#endif

}  // namespace

bool guardLmdb() {
  bool guarded = false;
#if defined(__LP64__) && (defined(__x86_64__) || defined(__aarch64__))
  dl_iterate_phdr(guardObject, &guarded);
#endif
  return guarded;
}

bool opensWithoutLocks() { return isOpenReplaced; }

void openingLmdb(Opening opening) {
  current = opening;
  if (opening != Opening::kNone) return;
  std::sort(deleted.begin(), deleted.end());
  deleted.erase(std::unique(deleted.begin(), deleted.end()), deleted.end());
  for (void* object : deleted) ::operator delete(object);
  deleted.clear();
}

std::vector<std::string> takeLmdbLines() {
  const std::lock_guard<std::mutex> guard(mutex);
  std::vector<std::string> taken;
  taken.swap(lines);
  return taken;
}

}  // namespace ebbtide
