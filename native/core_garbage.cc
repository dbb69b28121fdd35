// What the core knows by the marks that live on: what is garbage now, and whether they are right. See core.h.
#include "core.h"

namespace ebbtide {

std::array<uint32_t, 32> Core::garbageByType() {
  const OwnerLock lock(*this);
  return live_ == nullptr || live_->isBroken() ? std::array<uint32_t, 32>{} : live_->garbageByType();
}

std::vector<NodeId> Core::garbage(size_t from, size_t count) {
  const OwnerLock lock(*this);
  std::vector<NodeId> ids;
  if (live_ == nullptr) return ids;
  const size_t end = std::min(live_->listedGarbage(), count < SIZE_MAX - from ? from + count : SIZE_MAX);
  for (; from < end; from++) {
    const NodeId id = live_->garbageAt(from);
    if (live_->isGarbage(id)) ids.push_back(id);
  }
  return ids;
}

std::vector<NodeId> Core::freshGarbage() {
  const OwnerLock lock(*this);
  return live_ == nullptr ? std::vector<NodeId>() : live_->takeFresh();
}

std::unique_ptr<CheckJob> Core::checkLive() {
  if (run_ != nullptr) throw failedPrecondition("checkLive: a run is in progress; end it with endRun first");
  const OwnerLock lock(*this);
  dropCheck();
  if (live_ != nullptr && !live_->isBroken()) check_ = std::make_shared<LiveCheck>(graph_, live_);
  try {
    return std::make_unique<CheckJob>(shared_from_this(), check_);
  } catch (const std::bad_alloc&) {
    dropCheck();
    throw;
  }
}

void Core::dropCheck() {
  graph_.assertLocked();
  if (check_ == nullptr) return;
  check_->cancelled = true;
  check_->detach();
  check_.reset();
}

CheckJob::~CheckJob() {
  if (check_ == nullptr) return;
  const Core::OwnerLock lock(*core_);
  if (core_->check_ == check_) core_->dropCheck();
}

void CheckJob::work() {
  if (check_ != nullptr) core_->runSteps(check_->cancelled, [this] { return advance(); });
}

bool CheckJob::step() {
  if (check_ == nullptr) return true;
  const Locked lock(core_->mutex_);
  return check_->cancelled || advance();
}

// Memory may have run out for either's marks: both are given up, of which only some can be known to be right.
bool CheckJob::advance() try {
  return check_->step();
} catch (const std::bad_alloc&) {
  check_->markBroken();
  return true;
}

std::optional<std::vector<NodeId>> CheckJob::result() {
  if (check_ == nullptr) return std::nullopt;
  const Core::OwnerLock lock(*core_);
  const auto wrong = check_->cancelled ? std::nullopt : check_->result();
  if (core_->check_ == check_) core_->dropCheck();
  if (core_->live_ != nullptr && (core_->live_->isBroken() || (wrong.has_value() && !wrong->empty()))) core_->dropLive();
  return wrong;
}

}  // namespace ebbtide
