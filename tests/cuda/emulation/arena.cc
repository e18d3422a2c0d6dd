#include "tests/cuda/emulation/arena.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

namespace tw::emulation {
namespace {

constexpr size_t kArenaBytes = size_t{4} << 30, kPage = 4096, kGuard = 256;
constexpr int kNoise = 0xCD, kGuardByte = 0xA5;

struct Arena {
  std::mutex mutex;
  uint8_t* start = nullptr;
  size_t end = 0;   // bytes from the start that pieces were cut from
  size_t used = 0;  // the same in whole pages: what is opened and closed
  int open = 0;
  std::map<uint8_t*, size_t> pieces;       // bytes asked for
  std::map<uint8_t*, size_t> free_pieces;  // bytes with guards

  Arena() {
    void* memory =
        mmap(nullptr, kArenaBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) Die("no address space for an emulated device");
    start = static_cast<uint8_t*>(memory);
  }
  void Protect(int how) {
    if (used > 0 && mprotect(start, used, how) != 0) Die("mprotect failed");
  }
  void Open() {
    if (open++ == 0) Protect(PROT_READ | PROT_WRITE);
  }
  void Close() {
    if (--open == 0) Protect(PROT_NONE);
  }
  // The fewer pages, the faster.
  void StartAnew() {
    Protect(PROT_NONE);
    madvise(start, used, MADV_DONTNEED);
    end = used = 0;
    free_pieces.clear();
  }
};

Arena& TheArena() {
  static auto* arena = new Arena;
  return *arena;
}

size_t WithGuard(size_t bytes) { return (bytes + 255) / 256 * 256 + kGuard; }

}  // namespace

void Die(const char* what) {
  std::fprintf(stderr, "emulated device: %s\n", what);
  std::abort();
}

uint8_t* ArenaAllocate(size_t bytes) {
  Arena& arena = TheArena();
  std::lock_guard<std::mutex> lock(arena.mutex);
  const size_t whole = WithGuard(bytes);
  uint8_t* out = nullptr;
  for (auto it = arena.free_pieces.begin(); it != arena.free_pieces.end(); ++it) {
    if (it->second != whole) continue;
    out = it->first;
    arena.free_pieces.erase(it);
    break;
  }
  if (out == nullptr) {
    if (arena.end + whole > kArenaBytes) return nullptr;
    out = arena.start + arena.end;
    arena.end += whole;
    arena.used = (arena.end + kPage - 1) / kPage * kPage;
    if (arena.open) arena.Protect(PROT_READ | PROT_WRITE);
  }
  arena.Open();
  std::memset(out, kNoise, bytes);
  std::memset(out + bytes, kGuardByte, whole - bytes);
  arena.Close();
  arena.pieces[out] = bytes;
  return out;
}

void ArenaFree(uint8_t* memory) {
  Arena& arena = TheArena();
  std::lock_guard<std::mutex> lock(arena.mutex);
  const auto it = arena.pieces.find(memory);
  if (it == arena.pieces.end()) Die("what is freed was never allocated");
  const size_t bytes = it->second, whole = WithGuard(bytes);
  arena.Open();
  for (size_t i = bytes; i < whole; ++i) {
    if (memory[i] != kGuardByte) Die("a kernel wrote behind its memory");
  }
  std::memset(memory, kNoise, bytes);
  arena.Close();
  arena.pieces.erase(it);
  arena.free_pieces[memory] = whole;
  if (arena.pieces.empty()) arena.StartAnew();
}

bool ArenaHolds(const void* memory, size_t bytes) {
  Arena& arena = TheArena();
  std::lock_guard<std::mutex> lock(arena.mutex);
  auto* at = static_cast<uint8_t*>(const_cast<void*>(memory));
  auto it = arena.pieces.upper_bound(at);
  if (it == arena.pieces.begin()) return false;
  --it;
  return at + bytes <= it->first + it->second;
}

bool InArena(const void* memory) {
  const auto* at = static_cast<const uint8_t*>(memory);
  return at >= TheArena().start && at < TheArena().start + kArenaBytes;
}

int64_t ArenaPieces() {
  std::lock_guard<std::mutex> lock(TheArena().mutex);
  return static_cast<int64_t>(TheArena().pieces.size());
}

ArenaOpen::ArenaOpen() {
  std::lock_guard<std::mutex> lock(TheArena().mutex);
  TheArena().Open();
}
ArenaOpen::~ArenaOpen() {
  std::lock_guard<std::mutex> lock(TheArena().mutex);
  TheArena().Close();
}

}  // namespace tw::emulation
