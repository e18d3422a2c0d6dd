#include "examples/convergence/problems/client_rows.h"

#include <string>

namespace tw {

StatusOr<ClientRows> ClientRows::Create(const SparseRows& rows,
                                        const std::vector<std::vector<int64_t>>& clients) {
  if (rows.classes != 2) {
    return ConfigError("logistic regression is for 2 classes, the rows have " +
                       std::to_string(rows.classes));
  }
  ClientRows out;
  out.features = rows.features;
  for (size_t client = 0; client < clients.size(); ++client) {
    if (clients[client].empty()) {
      return ConfigError("client " + std::to_string(client) + " has no rows");
    }
    for (const int64_t position : clients[client]) {
      const auto row = static_cast<size_t>(position);
      for (int64_t k = rows.row_begin[row]; k < rows.row_begin[row + 1]; ++k) {
        out.columns.push_back(rows.columns[static_cast<size_t>(k)]);
        out.values.push_back(rows.values[static_cast<size_t>(k)]);
      }
      out.row_begin.push_back(out.columns.size());
      out.signs.push_back(rows.labels[row] == 1 ? 1.0f : -1.0f);
    }
    out.client_begin.push_back(out.signs.size());
  }
  return out;
}

}  // namespace tw
