// Drives a fuzz target without a fuzzer. Takes its seeds and some thousand inputs made from them, the same every time:
//
//   replay [--count N]      seeds, then N mutated inputs (default 4000)
//   replay --seeds DIR      writes the seeds into files, for a fuzzer to begin with
//   replay FILE …           takes these files: an input that a fuzzer has found
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include "target.h"

using namespace ebbtide::fuzz;

namespace {

void take(const Bytes& bytes) { LLVMFuzzerTestOneInput(bytes.data(), bytes.size()); }

// One to eight changes of the kinds that fuzzers make.
Bytes mutated(Bytes bytes, const std::vector<Bytes>& all, std::mt19937& random) {
  constexpr uint8_t kTelling[] = {0, 1, 2, 3, 0x7f, 0x80, 0xfe, 0xff};
  for (size_t changes = 1 + random() % 8; changes > 0; changes--) {
    const size_t at = bytes.empty() ? 0 : random() % bytes.size();
    const auto place = bytes.begin() + static_cast<std::ptrdiff_t>(at);
    switch (bytes.empty() ? 2 : random() % 6) {
      case 0: bytes[at] ^= static_cast<uint8_t>(1u << random() % 8); break;
      case 1: bytes[at] = kTelling[random() % std::size(kTelling)]; break;
      case 2: bytes.insert(place, static_cast<uint8_t>(random())); break;
      case 3: bytes.erase(place); break;
      case 4: {
        for (size_t n = at; n < bytes.size() && n < at + 4; n++) bytes[n] = static_cast<uint8_t>(random());
        break;
      }
      default: {
        const Bytes& other = all[random() % all.size()];
        bytes.resize(at);
        if (!other.empty()) bytes.insert(bytes.end(), other.begin() + static_cast<std::ptrdiff_t>(random() % other.size()), other.end());
      }
    }
  }
  if (bytes.size() > 8192) bytes.resize(8192);
  return bytes;
}

int writeSeeds(const std::string& directory) {
  int n = 0;
  for (const Bytes& seed : seeds()) {
    std::ofstream file(directory + "/seed-" + std::to_string(n++), std::ios::binary);
    file.write(reinterpret_cast<const char*>(seed.data()), static_cast<std::streamsize>(seed.size()));
    if (!file) return 1;
  }
  return 0;
}

int takeFiles(int count, char** names) {
  for (int i = 0; i < count; i++) {
    std::ifstream file(names[i], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "replay: cannot read %s\n", names[i]);
      return 2;
    }
    take(Bytes(std::istreambuf_iterator<char>(file), {}));
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 3 && std::strcmp(argv[1], "--seeds") == 0) return writeSeeds(argv[2]);
  if (argc > 1 && argv[1][0] != '-') return takeFiles(argc - 1, argv + 1);
  size_t count = 4000;
  if (argc == 3 && std::strcmp(argv[1], "--count") == 0) count = std::strtoul(argv[2], nullptr, 10);
  const std::vector<Bytes> all = seeds();
  for (const Bytes& seed : all) take(seed);
  std::mt19937 random(20261125);
  for (size_t n = 0; n < count; n++) take(mutated(all[random() % all.size()], all, random));
  const char* slash = std::strrchr(argv[0], '/');
  std::printf("%s: %zu seeds and %zu mutated inputs taken\n", slash == nullptr ? argv[0] : slash + 1, all.size(), count);
  return 0;
}
