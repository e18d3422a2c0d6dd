#pragma once
// Pieces of a run of rows: every row in one piece, sizes one apart at most.

#include <algorithm>
#include <cstdint>

namespace tw {

struct Tile {
  int64_t from, count;
};

inline Tile TileOf(int64_t rows, int64_t i, int64_t num_tiles) {
  const int64_t from = rows * i / num_tiles;
  return {from, rows * (i + 1) / num_tiles - from};
}

// The number of pieces of which each holds a row at least.
inline int64_t ClampTiles(int64_t rows, int64_t num_tiles) {
  return std::max<int64_t>(1, std::min(rows, num_tiles));
}

// The fewest pieces of which each takes at most `budget` bytes, but none made shorter than
// `least_rows` for it.
inline int64_t TilesWithin(int64_t rows, int64_t bytes_per_row, int64_t budget,
                           int64_t least_rows) {
  const int64_t rows_each = std::max(least_rows, budget / std::max<int64_t>(1, bytes_per_row));
  return ClampTiles(rows, (rows + rows_each - 1) / std::max<int64_t>(1, rows_each));
}

}  // namespace tw
