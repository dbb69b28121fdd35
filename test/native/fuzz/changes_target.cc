// Fuzz target: bytes as a story of changes, with runs, checkpoints and reports under way between them, each taken on
// step by step. A plain model (model.h) says which batches are possible and what every call must return.
#include <algorithm>
#include <string>

#include "checkpoint/checkpoint_format.h"
#include "model.h"
#include "target.h"

namespace ebbtide::fuzz {

namespace {

constexpr NodeId kIds = 20;
constexpr size_t kMostActions = 200;
// Ids far apart cost a block of memory each and long walks past those that are not there.
constexpr int kMostRawBatches = 4;
constexpr NodeId kFarthest = 1 << 21;

class Reader {
 public:
  Reader(const uint8_t* data, size_t size) : data_(data), left_(size) {}
  bool atEnd() const { return left_ == 0; }
  uint8_t byte() {
    if (left_ == 0) return 0;
    left_--;
    return *data_++;
  }
  uint32_t word() {
    uint32_t word = 0;
    for (int i = 0; i < 4; i++) word = word << 8 | byte();
    return word;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

enum Action : uint8_t {
  kBatch, kRawBatch, kMarkBegins, kMarkSteps, kMarkEnds, kMarkFrom, kAsk, kEndRun, kSaveBegins, kSaveSteps, kSaveEnds,
  kReportBegins, kReportSteps, kReportEnds, kLists, kReload, kClear, kManyEdges, kLiveBegins, kLook, kActions
};

class Story {
 public:
  Story(const uint8_t* data, size_t size) : reader_(data, size) {}

  void run() {
    for (size_t n = 0; n < kMostActions && !reader_.atEnd(); n++) act(reader_.byte() % kActions);
    if (save_ != nullptr) endSave();
    if (report_ != nullptr) endReport();
    look();
    mustBeAsTheModelSays();
  }

 private:
  void act(uint8_t action) {
    switch (action) {
      case kBatch: batch(); break;
      case kRawBatch: rawBatch(); break;
      case kMarkBegins: beginMark(false); break;
      case kLiveBegins: beginMark(true); break;
      case kLook: look(); break;
      case kMarkSteps: stepMark(1 + reader_.byte() % 4); break;
      case kMarkEnds:
        while (mark_ != nullptr) stepMark(100);
        break;
      case kMarkFrom: markFrom(); break;
      case kAsk: ask(); break;
      case kEndRun: endRun(); break;
      case kSaveBegins: beginSave(); break;
      case kSaveSteps: if (save_ != nullptr && save_->step()) checkSave(); break;
      case kSaveEnds: if (save_ != nullptr) endSave(); break;
      case kReportBegins: beginReport(); break;
      case kReportSteps: if (report_ != nullptr && report_->step()) checkReport(); break;
      case kReportEnds: if (report_ != nullptr) endReport(); break;
      case kLists: lists(); break;
      case kReload: reload(); break;
      case kClear: forgetAll([this] { core_->clear(); }); model_ = {}; break;
      case kManyEdges: manyEdges(); break;
      default: break;
    }
  }

  // ---------------------------------------------------------------------------------------------------------- changes

  void apply(const Words& ops) {
    std::set<NodeId> allocated;
    auto next = model_.after(ops, allocated);
    try {
      core_->apply(ops);
      MUST(next.has_value());
    } catch (const GraphError& error) {
      MUST(std::string(error.kind()) == "InvalidArgument");
      MUST(!next.has_value());
      next = model_;
      allocated.clear();
    }
    model_ = std::move(*next);
    if (now_.has_value()) allocated_.insert(allocated.begin(), allocated.end());
    MUST(core_->graph().nodeCount() == model_.nodes.size() && core_->graph().edgeCount() == model_.edgeCount);
    if (now_.has_value() && mark_ == nullptr) mustBeClosed();
  }

  void batch() {
    Words ops;
    for (int n = reader_.byte() % 4; n >= 0; n--) {
      const uint8_t code = reader_.byte() % 8;
      const NodeId a = reader_.byte() % kIds;
      if (code < 2) {
        const uint32_t flags = reader_.byte() | (reader_.byte() % 40u) << 8;
        appendSet(ops, a, flags, static_cast<int8_t>(reader_.byte()));
      } else if (code == 2) {
        append(ops, {kOpFree, a});
      } else {
        const uint32_t b = reader_.byte();
        append(ops, {code < 6 ? uint32_t{kOpAdd} : uint32_t{kOpRemove}, a, b % kIds, b / kIds % 4});
      }
    }
    apply(ops);
  }

  void rawBatch() {
    if (rawBatches_++ == kMostRawBatches) return;
    Words ops;
    for (int n = reader_.byte() % 12; n > 0; n--) ops.push_back(near(reader_.word()));
    apply(ops);
  }

  // What is beyond the limit stays so.
  static uint32_t near(uint32_t word) { return word < kMaxNodes ? word % kFarthest : word; }

  // More edges of one node than a block takes, and back.
  void manyEdges() {
    const NodeId from = reader_.byte() % kIds;
    const NodeId to = reader_.byte() % kIds;
    const uint32_t kind = reader_.byte() % kEdgeKinds;
    const bool adds = reader_.byte() % 2 == 0;
    if (adds && model_.edgeCount > 1000) return;
    Words ops;
    for (int n = 0; n < 260; n++) append(ops, {adds ? uint32_t{kOpAdd} : uint32_t{kOpRemove}, from, to, kind});
    apply(ops);
  }

  void forgetAll(const auto& forget) {
    forget();
    mustBeCanceled(mark_, [](MarkJob& job) { return job.step(1); });
    mustBeCanceled(save_, [](SaveJob& job) { return job.step(); });
    mustBeCanceled(report_, [](RetainedJob& job) { return job.step(); });
    runIsOver();
  }

  template <typename Job, typename Step>
  void mustBeCanceled(std::unique_ptr<Job>& job, Step step) {
    if (job == nullptr) return;
    while (!step(*job)) continue;
    try {
      job->result();
      MUST(!"a job of a dropped graph gave a result");
    } catch (const GraphError& error) {
      MUST(std::string(error.kind()) == "Canceled");
    }
    job.reset();
  }

  void reload() {
    const Bytes image = savedNow(*core_);
    forgetAll([&] { MUST(core_->load(image)); });
    MUST(savedNow(*core_) == image);
  }

  // ------------------------------------------------------------------------------------------------------------- runs

  void beginMark(bool live) {
    const auto now = static_cast<int8_t>(reader_.byte());
    try {
      mark_ = live ? core_->markLive(now, LiveFault::kNone) : core_->mark(now, Barrier::kOn);
      MUST(!now_.has_value());
      now_ = now;
      allocated_.clear();
    } catch (const GraphError& error) {
      MUST(now_.has_value() && std::string(error.kind()) == "FailedPrecondition");
    }
  }

  // Live marks, if there are any, are what a walk finds.
  void look() {
    const auto wrong = core_->wrongLive();
    MUST(!wrong.has_value() || wrong->empty());
  }

  void stepMark(size_t nodes) {
    if (mark_ == nullptr || !mark_->step(nodes)) return;
    mark_->result();
    mark_.reset();
    mustBeClosed();
  }

  void markFrom() {
    Words ids;
    for (int n = reader_.byte() % 3; n >= 0; n--) ids.push_back(reader_.byte() % (kIds + 4));
    if (!isReady()) {
      try {
        core_->markFrom(ids);
        MUST(!"ids were marked without a run");
      } catch (const GraphError&) {
      }
      return;
    }
    core_->markFrom(ids);
    for (const NodeId id : ids) {
      if (model_.nodes.contains(id)) MUST((core_->marksOf(id) & kPlain) != 0);
    }
    mustBeClosed();
  }

  bool isReady() const { return now_.has_value() && mark_ == nullptr; }

  // All that is reachable is marked, the marks are closed, and no candidate is marked or new.
  void mustBeClosed() {
    const States reachable = model_.reachable(*now_);
    for (const auto& [id, flat] : reachable) MUST((core_->marksOf(id) & (flat ? kFlat : kPlain)) != 0);
    States marked;
    for (const auto& [id, node] : model_.nodes) {
      if ((core_->marksOf(id) & kPlain) != 0) marked.insert({id, false});
      if ((core_->marksOf(id) & kFlat) != 0) marked.insert({id, true});
    }
    MUST(model_.reachableFrom(marked) == marked);
  }

  void ask() {
    if (!isReady()) {
      try {
        core_->candidates();
        MUST(!"there are candidates without a run");
      } catch (const GraphError& error) {
        MUST(std::string(error.kind()) == "FailedPrecondition");
      }
      return;
    }
    const States reachable = model_.reachable(*now_);
    const auto candidates = core_->candidates();
    for (const NodeId id : candidates) {
      const uint32_t flags = model_.nodes.at(id).flags;
      MUST((flags & kPresent) != 0 && (flags & kCollectible) != 0);
      MUST(!reachable.contains({id, false}) && !reachable.contains({id, true}) && !allocated_.contains(id));
      MUST((core_->marksOf(id) & (kReached | kAllocatedBlack)) == 0);
    }
    MUST(core_->stillCandidates(candidates) == candidates);
    MUST(std::set<NodeId>(candidates.begin(), candidates.end()).size() == candidates.size());
  }

  void endRun() {
    if (isReady()) core_->catchUp(reader_.byte() % 8);
    core_->endRun();
    mustBeCanceled(mark_, [](MarkJob& job) { return job.step(1); });
    runIsOver();
  }

  void runIsOver() {
    now_.reset();
    allocated_.clear();
  }

  // ------------------------------------------------------------------------------------------- checkpoints and reports

  void beginSave() {
    if (save_ != nullptr) return;
    image_ = savedNow(*core_);
    save_ = core_->save();
  }

  void endSave() {
    save_->work();
    checkSave();
  }

  void checkSave() {
    // Marks that break, or are counted anew, while they are saved are left out.
    const Bytes image = save_->result();
    MUST(marksOf(image) == 0 ? framesOf(image) == framesOf(image_) : image == image_);
    save_.reset();
    const auto other = std::make_shared<Core>();
    MUST(other->load(image_));
    MUST(savedNow(*other) == image_);
  }

  static size_t marksOf(const Bytes& image) { return format::load<uint32_t>(image.data() + 20); }
  static Bytes framesOf(const Bytes& image) {
    return {image.begin() + format::kHeaderBytes, image.end() - static_cast<std::ptrdiff_t>(marksOf(image))};
  }

  void beginReport() {
    if (report_ != nullptr) return;
    Words items;
    Words members;
    Words ends;
    for (NodeId id = 0; id < kIds; id++) items.push_back(id % 3 == 0 ? RetainedQuery::kNoItem : id % 7);
    for (int sets = reader_.byte() % 4; sets > 0; sets--) {
      for (int n = reader_.byte() % 4; n > 0; n--) members.push_back(reader_.byte() % (kIds + 2));
      ends.push_back(static_cast<uint32_t>(members.size()));
    }
    RetainedQuery query{static_cast<int8_t>(reader_.byte()), items, std::vector<double>{1, 2, 4, 8, 16, 32, 64},
                        members, ends, Words{}, Words{}};
    sums_ = model_.retained(query);
    report_ = core_->retained(std::move(query));
  }

  void endReport() {
    report_->work();
    checkReport();
  }

  void checkReport() {
    const RetainedSums sums = report_->result();
    MUST(sums.kept == sums_.kept && sums.total == sums_.total && sums.retained == sums_.retained);
    MUST(sums.reached == sums_.reached);
    report_.reset();
  }

  // ------------------------------------------------------------------------------------------------------------ lists

  void lists() {
    for (const NodeId id : core_->takeFreeable()) MUST(model_.isFreeable(id));
    for (const uint32_t flags : {uint32_t{kPresent}, uint32_t{kConditional}, uint32_t{kForeign | kPresent}}) {
      std::vector<NodeId> wanted;
      for (const auto& [id, node] : model_.nodes) {
        if ((node.flags & flags) == flags) wanted.push_back(id);
      }
      MUST(core_->graph().withFlags(flags) == wanted);
    }
    for (const NodeId id : core_->graph().unused(0, 50)) MUST(!model_.nodes.contains(id));
  }

  void mustBeAsTheModelSays() {
    const Graph& graph = core_->graph();
    MUST(graph.limit() == (model_.nodes.empty() ? 0 : model_.nodes.rbegin()->first + 1));
    for (const auto& [id, node] : model_.nodes) {
      MUST(graph.exists(id) && graph.flags(id) == node.flags && graph.inDegree(id) == model_.inDegree(id));
      MUST(graph.expiry(id) == ((node.flags & kExpires) != 0 ? std::optional(node.expiry) : std::nullopt));
      Words words;
      graph.edges().sorted(*graph.find(id), words);
      MUST(words == model_.words(id, true));
    }
  }

  Reader reader_;
  std::shared_ptr<Core> core_ = std::make_shared<Core>();
  Model model_;
  std::optional<int64_t> now_;  // of the run
  std::set<NodeId> allocated_;       // since it began
  std::unique_ptr<MarkJob> mark_;
  std::unique_ptr<SaveJob> save_;
  Bytes image_;
  std::unique_ptr<RetainedJob> report_;
  RetainedSums sums_;
  int rawBatches_ = 0;
};

// Writes a story: nodes 0 to 19 with edges, then what is given.
Bytes story(std::initializer_list<uint8_t> then) {
  Bytes bytes;
  for (uint8_t id = 0; id < kIds; id += 4) {
    bytes.insert(bytes.end(), {kBatch, 3});
    for (uint8_t n = 0; n < 4; n++) {
      const uint8_t flags = id + n == 0 ? kPresent | kRoot : kPresent | kCollectible;
      bytes.insert(bytes.end(), {0, static_cast<uint8_t>(id + n), flags, 1, 0});
    }
  }
  for (uint8_t id = 0; id + 1u < kIds; id++) {
    bytes.insert(bytes.end(), {kBatch, 0, 3, id, static_cast<uint8_t>(id + 1 + kIds * (id % 3))});
  }
  bytes.insert(bytes.end(), then);
  return bytes;
}

// A big list that is followed step by step, and loses edges when it has been followed for `steps`.
Bytes bigListStory(int steps) {
  Bytes bytes = story({kManyEdges, 1, 2, 0, 0});
  const auto change = [&](uint8_t code, uint8_t to, uint8_t kind) {
    bytes.insert(bytes.end(), {kBatch, 0, code, 1, static_cast<uint8_t>(to + kIds * kind)});
  };
  for (uint8_t to = 2; to < kIds; to++) {
    for (const uint8_t kind : {0, 2}) change(3, to, kind);
  }
  bytes.insert(bytes.end(), {kMarkBegins, 0});
  for (; steps > 0; steps--) bytes.insert(bytes.end(), {kMarkSteps, 3});
  for (uint8_t to = 3; to < kIds; to += 3) change(6, to, 0);
  bytes.insert(bytes.end(), {kMarkEnds, kAsk, kSaveBegins, kSaveEnds});
  return bytes;
}

}  // namespace

std::vector<Bytes> seeds() {
  return {
      {},
      bigListStory(8),
      bigListStory(14),
      story({kMarkBegins, 0, kMarkEnds, kAsk, kEndRun, kLists}),
      story({kMarkBegins, 0, kMarkSteps, 1, kMarkSteps, 1, kBatch, 1, 3, 0, 9, 6, 8, 49, kMarkEnds, kAsk, kMarkFrom, 1, 15, 16}),
      story({kSaveBegins, kBatch, 0, 6, 3, 4, kSaveSteps, kBatch, 0, 0, 19, 0, 0, 0, kSaveEnds, kReload}),
      story({kReportBegins, 2, 1, 0, 2, 3, 9, 0, kBatch, 0, 6, 3, 4, kReportSteps, kReportEnds}),
      story({kLiveBegins, 0, kMarkEnds, kAsk, kEndRun, 0, kBatch, 0, 6, 3, 24, kBatch, 0, 3, 9, 5, kLook, kLiveBegins, 1, kMarkSteps, 1,
             kBatch, 0, 0, 0, 1, 1, 0, kMarkEnds, kAsk, kMarkFrom, 1, 15, 16, kBatch, 1, 3, 0, 9, 6, 8, 49, kAsk, kEndRun, 3, kLook}),
      story({kManyEdges, 0, 2, 0, 0, kLiveBegins, 0, kMarkSteps, 3, kManyEdges, 0, 2, 0, 1, kMarkEnds, kAsk, kEndRun, 1, kManyEdges, 0, 3, 0, 0,
             kLook, kBatch, 0, 0, 0, 1, 1, 0, kMarkBegins, 0, kMarkEnds, kLook, kEndRun, 0, kLiveBegins, 0, kMarkEnds, kAsk}),
      story({kManyEdges, 1, 2, 0, 0, kMarkBegins, 0, kMarkSteps, 1, kManyEdges, 1, 2, 0, 1, kMarkEnds, kAsk, kSaveBegins, kSaveEnds}),
      story({kMarkBegins, 0, kSaveBegins, kReportBegins, 1, 1, 4, 0, kClear, kBatch, 0, 0, 1, 3, 0, 0, kMarkBegins, 0, kMarkEnds}),
      {kRawBatch, 10, 0, 0, 0, 1, 0x3f, 0xff, 0xff, 0xfe, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0,
       0, 0, 0, 1, 0, 4, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, kMarkBegins, 0, kMarkEnds, kSaveBegins, kSaveEnds},
  };
}

}  // namespace ebbtide::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  ebbtide::fuzz::Story(data, size).run();
  return 0;
}
