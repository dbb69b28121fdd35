// A hash map from u32 to a small value, in one array: for the few nodes that have something extra (an expiry, an
// in-degree beyond a byte) and for nodes with very many edges. The key 0xffffffff is reserved.
//
// Contract: linear probing, load at most 3/4, backward-shift deletion, so that there are no tombstones. A call that
// runs out of memory throws bad_alloc and changes nothing. Threads: none of its own; the owner locks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace ebbtide {

template <typename Value>
class FlatMap {
 public:
  struct Slot {
    uint32_t key;
    [[no_unique_address]] Value value;
  };
  static constexpr uint32_t kEmpty = 0xffffffff;

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  // Slots, used or not; `slot(i)` for i below it walks the map, skipping keys that are kEmpty.
  size_t capacity() const { return capacity_; }
  const Slot& slot(size_t i) const { return slots_[i]; }
  size_t bytes() const { return capacity_ * sizeof(Slot); }

  const Value* find(uint32_t key) const {
    if (size_ == 0) return nullptr;
    for (size_t i = home(key);; i = next(i)) {
      if (slots_[i].key == key) return &slots_[i].value;
      if (slots_[i].key == kEmpty) return nullptr;
    }
  }
  Value* find(uint32_t key) { return const_cast<Value*>(static_cast<const FlatMap*>(this)->find(key)); }

  // The value of the key, which is added if it is missing.
  Value& at(uint32_t key) {
    if (Value* found = find(key)) return *found;
    if ((size_ + 1) * 4 > capacity_ * 3) resize(capacity_ == 0 ? 8 : capacity_ * 2);
    size_++;
    Slot& slot = slots_[freeSlot(key)];
    slot.key = key;
    slot.value = Value{};
    return slot.value;
  }

  bool erase(uint32_t key) {
    if (size_ == 0) return false;
    size_t hole = home(key);
    for (; slots_[hole].key != key; hole = next(hole)) {
      if (slots_[hole].key == kEmpty) return false;
    }
    for (size_t i = next(hole); slots_[i].key != kEmpty; i = next(i)) {
      const size_t wanted = home(slots_[i].key);
      // An entry may move into the hole unless its home slot is after the hole.
      if (((i - wanted) & (capacity_ - 1)) < ((i - hole) & (capacity_ - 1))) continue;
      slots_[hole] = slots_[i];
      hole = i;
    }
    slots_[hole].key = kEmpty;
    size_--;
    return true;
  }

  template <typename Visit>
  void forEach(Visit visit) const {
    for (size_t i = 0; i < capacity_; i++) {
      if (slots_[i].key != kEmpty) visit(slots_[i].key, slots_[i].value);
    }
  }

  void clear() {
    slots_.reset();
    capacity_ = size_ = 0;
  }

 private:
  size_t home(uint32_t key) const { return (key * 0x9e3779b1u) >> shift_ & (capacity_ - 1); }
  size_t next(size_t i) const { return (i + 1) & (capacity_ - 1); }

  size_t freeSlot(uint32_t key) const {
    size_t i = home(key);
    while (slots_[i].key != kEmpty) i = next(i);
    return i;
  }

  void resize(size_t capacity) {
    std::unique_ptr<Slot[]> old(new Slot[capacity]);
    for (size_t i = 0; i < capacity; i++) old[i].key = kEmpty;
    old.swap(slots_);
    const size_t before = capacity_;
    capacity_ = capacity;
    shift_ = 32;
    while (capacity >>= 1) shift_--;
    for (size_t i = 0; i < before; i++) {
      if (old[i].key != kEmpty) slots_[freeSlot(old[i].key)] = old[i];
    }
  }

  std::unique_ptr<Slot[]> slots_;
  size_t capacity_ = 0;
  size_t size_ = 0;
  unsigned shift_ = 32;
};

struct Nothing {};
using FlatSet = FlatMap<Nothing>;

}  // namespace ebbtide
