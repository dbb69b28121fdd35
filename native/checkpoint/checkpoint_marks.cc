// See checkpoint_marks.h for the layout, the contract and the threading rule.
#include "checkpoint/checkpoint_marks.h"

#include "checkpoint/checkpoint_format.h"
#include "base/crc32c.h"

namespace ebbtide {

namespace {

constexpr size_t kHeadBytes = 20;
constexpr size_t kChecksumAt = 16;
// Nodes whose marks change during one save, beyond which it goes without the section: 12 MiB.
constexpr size_t kMostEarlier = size_t{1} << 20;

uint32_t checksum(std::span<const uint8_t> bytes, uint32_t headerChecksum) {
  const uint32_t head = crc32c(bytes.data(), kChecksumAt, headerChecksum);
  return crc32c(bytes.data() + kHeadBytes, bytes.size() - kHeadBytes, head);
}

class IdReader {
 public:
  explicit IdReader(std::span<const uint8_t> bytes) : bytes_(bytes) {}

  bool read(uint32_t count, std::vector<NodeId>& ids) {
    if (count > bytes_.size() - at_) return false;  // each takes a byte or more
    ids.reserve(count);
    for (uint64_t next = 0; count > 0; count--) {
      uint64_t distance = 0;
      if (!number(distance) || distance == 0) return false;
      next += distance;
      if (next > kMaxNodes) return false;
      ids.push_back(static_cast<NodeId>(next - 1));
    }
    return true;
  }
  bool atEnd() const { return at_ == bytes_.size(); }

 private:
  bool number(uint64_t& value) {
    for (unsigned shift = 0; shift < 35; shift += 7) {
      if (at_ == bytes_.size()) return false;
      const uint8_t byte = bytes_[at_++];
      value |= uint64_t{byte & 0x7fu} << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  const std::span<const uint8_t> bytes_;
  size_t at_ = 0;
};

}  // namespace

void MarksWriter::Ids::add(NodeId id) {
  uint32_t distance = id + 1 - next;
  for (; distance > 0x7f; distance >>= 7) bytes.push_back(static_cast<uint8_t>((distance & 0x7f) | 0x80));
  bytes.push_back(static_cast<uint8_t>(distance));
  next = id + 1;
  count++;
}

void MarksWriter::gather(NodeId id) {
  // Dropped marks are broken ones.
  isLost_ |= live_->isBroken() || live_->restarts() != restarts_;
  if (isLost_) return;
  next_ = id + 1;
  const uint8_t* earlier = earlier_.find(id);
  const uint32_t marks = earlier != nullptr ? *earlier : live_->marksOf(id);
  if ((marks & kPlain) == 0) unmarked_.add(id);
  if ((marks & kFlat) != 0) flat_.add(id);
}

void MarksWriter::beforeMarks(NodeId id) try {
  if (isLost_ || id < next_ || id >= limit_ || earlier_.find(id) != nullptr) return;
  const auto marks = static_cast<uint8_t>(live_->marksOf(id));
  if (earlier_.size() < kMostEarlier) earlier_.at(id) = marks;
  else isLost_ = true;
} catch (const std::bad_alloc&) {
  isLost_ = true;
}

std::vector<uint8_t> MarksWriter::finish() {
  if (isLost_) return {};
  std::vector<uint8_t> bytes(kHeadBytes);
  std::memcpy(bytes.data(), &now_, sizeof now_);
  std::memcpy(bytes.data() + 8, &unmarked_.count, sizeof unmarked_.count);
  std::memcpy(bytes.data() + 12, &flat_.count, sizeof flat_.count);
  bytes.insert(bytes.end(), unmarked_.bytes.begin(), unmarked_.bytes.end());
  bytes.insert(bytes.end(), flat_.bytes.begin(), flat_.bytes.end());
  return bytes;
}

void sealMarks(std::span<uint8_t> section, uint32_t headerChecksum) {
  const uint32_t sum = checksum(section, headerChecksum);
  std::memcpy(section.data() + kChecksumAt, &sum, sizeof sum);
}

std::optional<SavedMarks> decodeMarks(std::span<const uint8_t> bytes, uint32_t headerChecksum) {
  if (bytes.size() < kHeadBytes) return std::nullopt;
  const uint8_t* head = bytes.data();
  if (format::load<uint32_t>(head + kChecksumAt) != checksum(bytes, headerChecksum)) return std::nullopt;
  SavedMarks marks;
  marks.now = format::load<int64_t>(head);
  IdReader ids(bytes.subspan(kHeadBytes));
  if (!ids.read(format::load<uint32_t>(head + 8), marks.unmarked)) return std::nullopt;
  if (!ids.read(format::load<uint32_t>(head + 12), marks.flat) || !ids.atEnd()) return std::nullopt;
  return marks;
}

}  // namespace ebbtide
