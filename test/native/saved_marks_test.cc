// Stories of marks that a checkpoint carries, without Node: saved in steps while changes and runs go on, loaded, damaged.
// npm run test:sanitize; SAVED_STORIES=n SAVED_SEED=n for more.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "checkpoint/checkpoint_format.h"
#include "checkpoint/checkpoint_marks.h"
#include "core.h"
#include "base/crc32c.h"

using namespace ebbtide;

namespace {

using Words = std::vector<uint32_t>;
using Bytes = std::vector<uint8_t>;

constexpr uint32_t kNodes = 14;
// In two frames, so that some are saved much later than others.
constexpr NodeId nodeId(uint32_t i) { return i % 2 == 0 ? i : format::kFrameIds + i; }

size_t sectionOf(const Bytes& image) { return format::load<uint32_t>(image.data() + 20); }
uint32_t checksumOf(const Bytes& image) { return format::load<uint32_t>(image.data() + 40); }
Bytes framesOf(const Bytes& image) {
  return {image.begin() + static_cast<std::ptrdiff_t>(format::kHeaderBytes), image.end() - static_cast<std::ptrdiff_t>(sectionOf(image))};
}

Bytes savedNow(Core& core) {
  const auto job = core.save();
  job->work();
  return job->result();
}

Words candidates(std::unique_ptr<MarkJob> job, Core& core) {
  job->work();
  job->result();
  Words found = core.candidates();
  core.endRun();
  std::sort(found.begin(), found.end());
  return found;
}

struct Story {
  explicit Story(uint32_t seed) : random(seed), core(std::make_shared<Core>()) {}

  uint32_t below(uint32_t n) { return random() % n; }
  NodeId anyNode() { return nodeId(below(kNodes)); }
  bool isEnough() { return core->graph().nodeCount() > 2; }

  void appendSet(Words& ops, NodeId id) {
    static constexpr uint32_t kBits[] = {kPresent | kCollectible, kPresent | kCollectible, kPresent | kCollectible, 0,
                                         kPresent | kRoot, kPresent | kRoot | kExpires, kRoot | kCollectible, kPresent};
    const int64_t expiry = static_cast<int64_t>(below(8)) - 3;
    ops.insert(ops.end(), {kOpSet, id, kBits[below(8)] | below(3) << 8, static_cast<uint32_t>(expiry), static_cast<uint32_t>(expiry >> 32)});
  }

  Words someOps() {
    Words ops;
    for (uint32_t n = below(4); n < 4; n++) {
      const NodeId a = anyNode();
      const Words pairs = core->graph().edgePairs(a);
      const uint32_t code = below(12);
      if (code < 3) {
        appendSet(ops, a);
      } else if (code < 7 || pairs.empty()) {
        ops.insert(ops.end(), {kOpAdd, a, anyNode(), below(5) == 0 ? kFlatEdge : below(2)});
      } else {
        const size_t at = below(static_cast<uint32_t>(pairs.size() / 2));
        ops.insert(ops.end(), {kOpRemove, a, pairs[2 * at], pairs[2 * at + 1]});
        if (code == 11) ops.insert(ops.end(), {kOpSet, a, 0, 0, 0, kOpFree, a});
      }
    }
    return ops;
  }
  static void apply(Core& to, const Words& ops) {
    try {
      to.apply(ops);
    } catch (const GraphError&) {
      // Not possible in this state.
    }
  }
  // More in-edges than a byte counts, from a list that is a hash map.
  void manyEdges() {
    Words ops;
    const NodeId from = anyNode();
    for (uint32_t n = 0; n < 300; n++) ops.insert(ops.end(), {kOpAdd, from, nodeId(below(3)), below(3)});
    apply(*core, ops);
  }
  int64_t anyTime() { return static_cast<int64_t>(below(8)) - 3; }

  void something() {
    const uint32_t what = below(12);
    if (what == 0) manyEdges();
    else if (what == 1) candidates(core->markLive(anyTime(), LiveFault::kNone), *core);
    else if (what == 2) core->bringUpToDate(1 + below(3));
    else apply(*core, someOps());
  }

  // Why it went wrong; null when it did not.
  const char* tell() {
    Words ops;
    for (uint32_t i = 0; i < kNodes; i++) appendSet(ops, nodeId(i));
    apply(*core, ops);
    for (int n = 0; n < 20; n++) apply(*core, someOps());
    candidates(core->markLive(anyTime(), LiveFault::kNone), *core);
    for (int round = 0; round < 3; round++) {
      for (uint32_t n = below(8); n > 0; n--) something();
      if (const char* why = save()) return why;
      if (const char* why = damage()) return why;
    }
    return nullptr;
  }

  // What is saved beside changes is what is saved at once, and lives on after a load as it does here.
  const char* save() {
    const auto job = core->save();
    image = savedNow(*core);
    const auto other = std::make_shared<Core>();
    if (!other->load(image)) return "a checkpoint was refused";
    const bool isSaved = sectionOf(image) != 0;
    if (isSaved) saved++;
    if (other->wrongLive().has_value() != isSaved) return "marks were not taken along";
    if (isSaved && !other->wrongLive()->empty()) return "loaded marks or counts are not what a walk finds";
    if (savedNow(*other) != image) return "a loaded graph gives another checkpoint";
    while (!job->step()) {
      if (below(4) == 0) something();
    }
    const Bytes slow = job->result();
    // Marks that were counted anew meanwhile are left out.
    if (sectionOf(slow) == 0 ? framesOf(slow) != framesOf(image) : slow != image) return "changes beside a save show in it";
    // As commits of the journal are.
    for (int n = 0; n < 6; n++) apply(*other, someOps());
    const auto wrong = other->wrongLive();
    if (wrong.has_value() && !wrong->empty()) return "loaded marks do not follow ops";
    const int64_t now = anyTime();
    const Words live = candidates(other->markLive(now, LiveFault::kNone), *other);
    if (live != candidates(other->mark(now, Barrier::kOn), *other)) return "a run on loaded marks finds other garbage";
    return nullptr;
  }

  // Whatever a section claims, under right checksums: nothing that is reached is a candidate.
  const char* damage() {
    const size_t length = sectionOf(image);
    if (length == 0) return nullptr;
    for (int n = 0; n < 20; n++) {
      Bytes bad = image;
      const size_t start = bad.size() - length;
      for (uint32_t changes = 1 + below(3); changes > 0; changes--) {
        bad[start + 8 + below(static_cast<uint32_t>(length - 8))] = static_cast<uint8_t>(below(3) == 0 ? below(256) : below(4));
      }
      if (below(4) != 0) sealMarks(std::span(bad).last(length), checksumOf(bad));
      if (const char* why = isHarmless(bad)) return why;
    }
    // A section of another moment, under this one's header.
    if (!earlier.empty() && sectionOf(earlier) == length && earlier != image) {
      Bytes bad = image;
      std::copy(earlier.end() - static_cast<std::ptrdiff_t>(length), earlier.end(), bad.end() - static_cast<std::ptrdiff_t>(length));
      sealMarks(std::span(bad).last(length), checksumOf(bad));
      if (const char* why = isHarmless(bad)) return why;
    }
    earlier = image;
    return nullptr;
  }

  const char* isHarmless(const Bytes& bytes) {
    const auto other = std::make_shared<Core>();
    if (!other->load(bytes)) return "damaged marks had the whole checkpoint refused";
    if (sectionOf(savedNow(*other)) != 0) believed++;
    else refused++;
    const int64_t now = anyTime();
    const Words live = candidates(other->markLive(now, LiveFault::kNone), *other);
    const Words all = candidates(other->mark(now, Barrier::kOn), *other);
    if (!std::includes(all.begin(), all.end(), live.begin(), live.end())) return "damaged marks make a reached node a candidate";
    return nullptr;
  }

  std::mt19937 random;
  std::shared_ptr<Core> core;
  Bytes image;
  Bytes earlier;
  // How often the stories came by what they are about.
  static inline int saved = 0;
  static inline int believed = 0;
  static inline int refused = 0;
};

int number(const char* name, int otherwise) {
  const char* given = std::getenv(name);
  return given == nullptr ? otherwise : std::atoi(given);
}

// Neither a run's pins nor what a trial left open gets into a checkpoint.
bool onlySettledMarksAreSaved() {
  const auto core = std::make_shared<Core>();
  core->apply(Words{kOpSet, 0, kPresent | kCollectible, 0, 0, kOpSet, 1, kPresent | kRoot, 0, 0});
  if (sectionOf(savedNow(*core)) != 0) return false;
  const auto job = core->markLive(0, LiveFault::kNone);
  job->work();
  if (sectionOf(savedNow(*core)) == 0) return false;
  core->markFrom(Words{0});
  if (sectionOf(savedNow(*core)) != 0) return false;
  core->endRun();
  return sectionOf(savedNow(*core)) != 0;
}

// A checkpoint of the version before marks came.
bool olderOnesAreRead() {
  const auto core = std::make_shared<Core>();
  core->apply(Words{kOpSet, 0, kPresent | kRoot, 0, 0});
  Bytes image = savedNow(*core);
  const auto put = [&](size_t at, uint32_t word) { std::memcpy(image.data() + at, &word, sizeof word); };
  put(4, 1);
  put(40, crc32c(image.data(), 40));
  const auto other = std::make_shared<Core>();
  return other->load(image) && other->graph().nodeCount() == 1 && !other->wrongLive().has_value();
}

}  // namespace

int main() {
  int failures = 0;
  const int stories = number("SAVED_STORIES", 1500);
  const int first = number("SAVED_SEED", 1);
  for (int seed = first; seed < first + stories && failures == 0; seed++) {
    if (const char* why = Story(static_cast<uint32_t>(seed)).tell()) failures += std::printf("saved_marks_test: seed %d: %s\n", seed, why) > 0;
  }
  if (failures == 0 && (Story::saved < stories || Story::refused < stories)) {
    failures += std::printf("saved_marks_test: marks were saved %d times only, and refused %d times\n", Story::saved, Story::refused) > 0;
  }
  if (!onlySettledMarksAreSaved()) failures += std::printf("saved_marks_test: marks that are not settled were saved\n") > 0;
  if (!olderOnesAreRead()) failures += std::printf("saved_marks_test: a checkpoint without marks was not read\n") > 0;
  if (failures == 0) std::printf("saved_marks_test: ok (%d saved; damaged: %d refused, %d right after all)\n", Story::saved, Story::refused, Story::believed);
  return failures == 0 ? 0 : 1;
}
