// Tests of the core's jobs without Node: marks, checkpoints and reports beside an owner who changes the graph, on threads and
// step by step. npm run test:sanitize.
#include <memory>
#include <string>
#include <thread>

#include "core_model.h"

using namespace ebbtide;

namespace {

// A thread marks, another saves and a third one reports while the owner changes the graph; the marks must include all that
// is reachable at the end, and image and report must be those of their beginning.
void opsBesideJobsAreSafe() {
  std::mt19937 random(7);
  for (int round = 0; round < 6; round++) {
    const auto core = std::make_shared<Core>();
    Model model;
    fill(*core, model, random, 30'000, 40'000);
    Words big;
    for (NodeId id = 0; id < 3000; id++) {
      if (!model.nodes.contains(id) || !model.nodes.contains(7)) continue;
      append(big, {kOpAdd, 7, id, kLabel});
      model.edges.insert({7, id, kLabel});
    }
    core->apply(big);
    const auto before = runSave(*core);
    const auto sums = runRetained(*core, question(30'000, 300));
    const auto save = core->save();
    const auto mark = core->mark(0, Barrier::kOn);
    const auto report = core->retained(question(30'000, 300));
    std::thread reporter([&] { report->work(); });
    std::thread saver([&] { save->work(); });
    std::thread marker([&] { mark->work(); });
    std::vector<std::tuple<NodeId, NodeId, uint32_t>> edges(model.edges.begin(), model.edges.end());
    for (int i = 0; i < 3000; i++) {
      Words ops;
      const auto& [from, to, kind] = edges[random() % edges.size()];
      if (model.edges.contains({from, to, kind})) {
        append(ops, {kOpRemove, from, to, kind});
        model.edges.erase(model.edges.find({from, to, kind}));
        const NodeId other = std::get<0>(edges[random() % edges.size()]);
        append(ops, {kOpAdd, other, to, kind});
        model.edges.insert({other, to, kind});
      }
      auto& node = model.nodes.at(to);
      if (i % 10 == 0) {
        node.flags |= kRoot;
        node.flags &= ~uint32_t{kExpires};
        append(ops, setOp(to, node.flags));
      }
      core->apply(ops);
    }
    saver.join();
    marker.join();
    reporter.join();
    mark->result();
    EXPECT(save->result() == before);
    EXPECT(report->result() == sums);
    EXPECT(!(runRetained(*core, question(30'000, 300)) == sums));
    for (const auto& [id, flat] : model.reachable(0)) EXPECT((core->marksOf(id) & (flat ? kFlat : kPlain)) != 0);
    for (const NodeId id : core->candidates()) EXPECT((core->marksOf(id) & kReached) == 0);
    core->endRun();
  }
}

// What the owner reads without the lock is what it wrote last, whatever marks a thread gives the same nodes meanwhile:
// pairs of a root and its child, of which it deletes and frees the latter.
void ownerDeletesWhileAThreadMarks() {
  constexpr NodeId kPairs = 100'000;
  constexpr uint32_t kChildFlags = kPresent | kCollectible | 3u << 8;
  const auto core = std::make_shared<Core>();
  Words ops;
  for (NodeId id = 0; id < 2 * kPairs; id += 2) {
    append(ops, setOp(id, kPresent | kRoot));
    append(ops, setOp(id + 1, kChildFlags));
    append(ops, {kOpAdd, id, id + 1, kLabel});
  }
  core->apply(ops);
  for (int round = 0; round < 3; round++) {
    const auto mark = core->mark(0, Barrier::kOn);
    std::thread marker([&] { mark->work(); });
    for (int i = 0; i < 300; i++) {
      const NodeId root = 2 * (static_cast<NodeId>(i) * (kPairs / 300) + static_cast<NodeId>(round));
      const NodeId child = root + 1;
      EXPECT(core->graph().flags(child) == kChildFlags);
      EXPECT(core->graph().isRoot(root, 0));
      core->apply(Words{kOpRemove, root, child, kLabel});
      core->apply(setOp(child, 0));
      EXPECT(core->graph().isFreeable(child));
      EXPECT(core->takeFreeable() == std::vector<NodeId>{child});
      core->apply(Words{kOpFree, child});
      EXPECT(core->graph().flags(child) == 0 && !core->graph().exists(child));
      if (i % 100 == 0) EXPECT(core->graph().withFlags(kRoot).size() == kPairs);
    }
    marker.join();
    mark->result();
    EXPECT(core->candidates().empty());
    core->endRun();
  }
}

void jobsCanBeCancelled() {
  std::mt19937 random(8);
  const auto core = std::make_shared<Core>();
  Model model;
  fill(*core, model, random, 50'000, 60'000);
  for (int round = 0; round < 20; round++) {
    const auto mark = core->mark(0, Barrier::kOn);
    const auto save = core->save();
    const auto report = core->retained(question(50'000, 50'000));
    std::thread marker([&] { mark->work(); });
    std::thread saver([&] { save->work(); });
    std::thread reporter([&] { report->work(); });
    if (round % 2 == 0) {
      core->endRun();
      report->builder()->cancelled = true;
    } else {
      core->clear();
    }
    marker.join();
    saver.join();
    reporter.join();
    try {
      report->result();
      EXPECT(!"a cancelled report gave a result");
    } catch (const GraphError& error) {
      EXPECT(std::string(error.kind()) == "Canceled");
    }
    try {
      mark->result();
      EXPECT(!"a cancelled marking gave a result");
    } catch (const GraphError& error) {
      EXPECT(std::string(error.kind()) == "Canceled");
    }
    if (core->graph().nodeCount() == 0) {
      Model again;
      fill(*core, again, random, 50'000, 60'000);
    }
  }
}

// A list that is being followed loses an edge, whereupon others move in it; none of those may be passed over. Their ids
// are such that they share a place in a map of 512, so that they do move.
void bigListsMayChangeWhileFollowed() {
  std::vector<NodeId> crowd;
  for (NodeId id = 1; crowd.size() < 60; id++) {
    if (((edgeWord(id, kLabel) * 0x9e3779b1u) >> 23) == 200) crowd.push_back(id);
  }
  std::set<NodeId> targets(crowd.begin(), crowd.end());
  for (NodeId id = 1; targets.size() < 340; id++) targets.insert(id);
  Words ops = setOp(0, kPresent | kRoot);
  for (const NodeId id : targets) append(ops, setOp(id, kPresent | kCollectible));
  for (const NodeId id : targets) append(ops, {kOpAdd, 0, id, kLabel});
  for (size_t steps = 190; steps < 290; steps++) {
    const auto core = std::make_shared<Core>();
    core->apply(ops);
    const auto job = core->mark(0, Barrier::kOn);
    for (size_t n = 0; n < steps; n++) EXPECT(!job->step(1));
    core->apply(Words{kOpRemove, 0, crowd.front(), kLabel});
    while (!job->step(1)) continue;
    const auto candidates = core->candidates();
    EXPECT(candidates.empty() || candidates == std::vector<NodeId>{crowd.front()});
  }
}

// A job that never runs must not leave its copy among the observers of the graph.
void droppedJobsAreForgotten() {
  std::mt19937 random(9);
  const auto core = std::make_shared<Core>();
  Model model;
  fill(*core, model, random, 500, 900);
  core->save();
  core->retained(question(500, 10));
  core->mark(0, Barrier::kOn);
  core->endRun();
  for (NodeId id = 0; id < 500; id++) core->apply(setOp(id, kPresent));
  EXPECT(runMark(*core, 0).marked == 0);
  core->endRun();
}

}  // namespace

int main() {
  opsBesideJobsAreSafe();
  ownerDeletesWhileAThreadMarks();
  jobsCanBeCancelled();
  bigListsMayChangeWhileFollowed();
  droppedJobsAreForgotten();
  std::printf("jobs_test: %d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
