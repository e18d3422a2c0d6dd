#pragma once
// The memory of an emulated device: pages that nobody may touch but while somebody holds ArenaOpen.
// A host that reads or writes the device's memory crashes the test. Thread safe.

#include <cstddef>
#include <cstdint>

namespace tw::emulation {

// Aligned to 256, full of noise; null when there is no room.
uint8_t* ArenaAllocate(size_t bytes);
// Ends the program when there was a write behind the piece, or none is there.
void ArenaFree(uint8_t* memory);
// Whether the bytes lie in one piece that has been allocated.
bool ArenaHolds(const void* memory, size_t bytes);
bool InArena(const void* memory);
int64_t ArenaPieces();

class ArenaOpen {
 public:
  ArenaOpen();
  ~ArenaOpen();
  ArenaOpen(const ArenaOpen&) = delete;
  ArenaOpen& operator=(const ArenaOpen&) = delete;
};

// What the emulation finds wrong, and the end.
[[noreturn]] void Die(const char* what);

}  // namespace tw::emulation
