// What Debian's C++ library for WebAssembly lacks: exceptions, and an operator new that throws.
//
// The compiler (clang, -fwasm-exceptions) turns `throw` into an instruction and asks, in a catch block, which of
// its clauses matches; the library's part, by the same ABI as on any machine, is here. One thread, no dynamic
// exception specifications, no exceptions of other languages.
//
// Memory: exceptions are thrown at the memory limit, too, hence the small reserve.

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <new>
#include <typeinfo>

namespace __cxxabiv1 {

// libc++abi's own, which decides whether a clause catches what was thrown.
class __shim_type_info : public std::type_info {
 public:
  ~__shim_type_info() override;
  virtual void noop1() const;
  virtual void noop2() const;
  virtual bool can_catch(const __shim_type_info* thrown, void*& object) const = 0;
};

}  // namespace __cxxabiv1

namespace {

using __cxxabiv1::__shim_type_info;

// Precedes every thrown object.
struct alignas(16) Thrown {
  const __shim_type_info* type;
  void* (*destroy)(void*);  // destructors return their argument here
  void* caught;    // the object as the clause sees it
  Thrown* outer;   // what was caught before this and is not finished
  int handlers;    // active catch blocks; negative while it is rethrown
};

Thrown* caught = nullptr;

Thrown* of(void* object) { return static_cast<Thrown*>(object) - 1; }
void* objectOf(Thrown* thrown) { return thrown + 1; }

constexpr size_t kReserved = 256;
struct Reserve {
  alignas(16) std::array<uint8_t, kReserved> bytes;
  bool taken;
};
std::array<Reserve, 8> reserves;

// The compiler's table of a function's catch clauses.
class Table {
 public:
  explicit Table(const uint8_t* at) : at_(at) {}
  uint8_t byte() { return *at_++; }
  uint32_t number() {
    uint32_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
      const uint8_t b = byte();
      value |= uint32_t{b & 0x7fu} << shift;
      if (b < 0x80) return value;
    }
  }
  int32_t signedNumber() {
    uint32_t value = 0;
    for (unsigned shift = 0;;) {
      const uint8_t b = byte();
      value |= uint32_t{b & 0x7fu} << shift;
      shift += 7;
      if (b >= 0x80) continue;
      if ((b & 0x40) != 0 && shift < 32) value |= ~uint32_t{0} << shift;
      return static_cast<int32_t>(value);
    }
  }
  const uint8_t* at() const { return at_; }

 private:
  const uint8_t* at_;
};

constexpr uint8_t kAbsent = 0xff;

}  // namespace

extern "C" {

// The compiler writes the first two before the call, and reads the result.
struct {
  uint32_t block;
  const uint8_t* table;
  int32_t clause;
} __wasm_lpad_context;

// Which clause of the block catches it; 0 for none.
int32_t _Unwind_CallPersonality(void* object) {
  Thrown* const thrown = of(object);
  Table header(__wasm_lpad_context.table);
  if (header.byte() != kAbsent) __builtin_trap();
  const uint8_t* types = nullptr;
  if (header.byte() != kAbsent) {
    const uint32_t length = header.number();
    types = header.at() + length;
  }
  header.byte();
  const uint32_t length = header.number();
  const uint8_t* const actions = header.at() + length;
  Table blocks(header.at());
  uint32_t action = 0;
  for (uint32_t block = 0; block <= __wasm_lpad_context.block; block++) {
    blocks.number();
    action = blocks.number();
  }
  __wasm_lpad_context.clause = 0;
  const uint8_t* at = action == 0 ? nullptr : actions + action - 1;
  while (at != nullptr) {
    Table entry(at);
    const int32_t clause = entry.signedNumber();
    const uint8_t* const from = entry.at();
    const int32_t onwards = entry.signedNumber();
    if (clause > 0) {
      const auto* type = reinterpret_cast<const __shim_type_info* const*>(types)[-clause];
      void* seen = object;
      if (type == nullptr || type->can_catch(thrown->type, seen)) {
        thrown->caught = seen;
        __wasm_lpad_context.clause = clause;
        break;
      }
    }
    at = onwards == 0 ? nullptr : from + onwards;
  }
  return 0;
}

void* __cxa_allocate_exception(size_t size) {
  const size_t bytes = sizeof(Thrown) + size;
  void* place = std::malloc(bytes);
  for (Reserve& reserve : reserves) {
    if (place != nullptr) break;
    if (reserve.taken || bytes > kReserved) continue;
    reserve.taken = true;
    place = reserve.bytes.data();
  }
  if (place == nullptr) __builtin_trap();
  return objectOf(new (place) Thrown{});
}

void __cxa_free_exception(void* object) {
  Thrown* const thrown = of(object);
  for (Reserve& reserve : reserves) {
    if (static_cast<void*>(thrown) != reserve.bytes.data()) continue;
    reserve.taken = false;
    return;
  }
  std::free(thrown);
}

void __cxa_throw(void* object, std::type_info* type, void* (*destroy)(void*)) {
  Thrown* const thrown = of(object);
  thrown->type = static_cast<const __shim_type_info*>(type);
  thrown->destroy = destroy;
  thrown->caught = object;
  __builtin_wasm_throw(0, object);
}

void* __cxa_begin_catch(void* object) {
  Thrown* const thrown = of(object);
  thrown->handlers = (thrown->handlers < 0 ? -thrown->handlers : thrown->handlers) + 1;
  if (caught != thrown) {
    thrown->outer = caught;
    caught = thrown;
  }
  return thrown->caught;
}

void __cxa_end_catch() {
  Thrown* const thrown = caught;
  if (thrown->handlers < 0) {
    // It propagates to an outer block.
    if (++thrown->handlers == 0) caught = thrown->outer;
    return;
  }
  if (--thrown->handlers > 0) return;
  caught = thrown->outer;
  if (thrown->destroy != nullptr) thrown->destroy(objectOf(thrown));
  __cxa_free_exception(objectOf(thrown));
}

void __cxa_rethrow() {
  caught->handlers = -caught->handlers;
  __builtin_wasm_throw(0, objectOf(caught));
}

// What libc++abi calls to report an abort, which would need a file to write to. A trap is a RuntimeError outside.
void abort_message(const char*, ...) { __builtin_trap(); }

}  // extern "C"

namespace std {

// An exception left a noexcept function.
void terminate() noexcept { __builtin_trap(); }

}  // namespace std

void* operator new(size_t bytes) {
  void* const place = std::malloc(bytes == 0 ? 1 : bytes);
  if (place == nullptr) throw std::bad_alloc();
  return place;
}
void* operator new[](size_t bytes) { return operator new(bytes); }
void operator delete(void* place) noexcept { std::free(place); }
void operator delete[](void* place) noexcept { std::free(place); }
void operator delete(void* place, size_t) noexcept { std::free(place); }
void operator delete[](void* place, size_t) noexcept { std::free(place); }
