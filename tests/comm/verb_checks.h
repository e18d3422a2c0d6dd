#pragma once
// What every communicator must do, run by the thread group's tests and by the program under mpirun.
// All ranks call a check together; each returns what is wrong on this rank, or "".

#include <numeric>
#include <string>
#include <vector>

#include "core/api/communicator.h"

namespace tw {

// The byte that rank `from` sends to rank `to` (or to all: -1) at position i.
inline uint8_t PatternByte(int from, int to, size_t i) {
  return static_cast<uint8_t>(31 * from + 7 * (to + 2) + 3 * i + i / 251);
}

inline std::string Differs(const char* what, int from, size_t at) {
  return std::string(what) + ": wrong byte from rank " + std::to_string(from) + " at " +
         std::to_string(at);
}

// Rank r contributes base + r * step bytes; with skip_odd the odd ranks contribute none.
inline std::string CheckAllGatherV(Communicator& comm, int64_t base, int64_t step, bool skip_odd,
                                   bool in_place) {
  const int n = comm.size();
  std::vector<int64_t> sizes;
  std::vector<size_t> begins;
  size_t total = 0;
  for (int r = 0; r < n; ++r) {
    sizes.push_back(skip_odd && r % 2 == 1 ? 0 : base + r * step);
    begins.push_back(total);
    total += static_cast<size_t>(sizes.back());
  }
  const size_t own = static_cast<size_t>(sizes[static_cast<size_t>(comm.rank())]);
  std::vector<uint8_t> all(total, 0xEE), separate(own);
  uint8_t* mine =
      in_place ? all.data() + begins[static_cast<size_t>(comm.rank())] : separate.data();
  for (size_t i = 0; i < own; ++i) mine[i] = PatternByte(comm.rank(), -1, i);
  const Status status = comm.AllGatherV({mine, own}, sizes, all, {1, 2, "gather"});
  if (!status.ok()) return std::string(status.message());
  for (int r = 0; r < n; ++r) {
    for (size_t i = 0; i < static_cast<size_t>(sizes[static_cast<size_t>(r)]); ++i) {
      if (all[begins[static_cast<size_t>(r)] + i] != PatternByte(r, -1, i)) {
        return Differs("all-gather", r, i);
      }
    }
  }
  return "";
}

// The length that rank `from` sends to rank `to`: uneven, with empty parts.
inline int64_t PartBytes(int from, int to, int64_t scale) {
  return (from + 2 * to) % 3 == 0 ? 0 : scale * (1 + from) + 5 * to;
}

inline std::string CheckAllToAllV(Communicator& comm, int64_t scale) {
  const int n = comm.size(), me = comm.rank();
  std::vector<int64_t> send_sizes, recv_sizes;
  std::vector<uint8_t> send;
  for (int r = 0; r < n; ++r) {
    send_sizes.push_back(PartBytes(me, r, scale));
    recv_sizes.push_back(PartBytes(r, me, scale));
    for (int64_t i = 0; i < send_sizes.back(); ++i) {
      send.push_back(PatternByte(me, r, static_cast<size_t>(i)));
    }
  }
  const auto total = std::accumulate(recv_sizes.begin(), recv_sizes.end(), int64_t{0});
  std::vector<uint8_t> recv(static_cast<size_t>(total), 0xEE);
  const Status status = comm.AllToAllV(send, send_sizes, recv, recv_sizes, {1, 2, "exchange"});
  if (!status.ok()) return std::string(status.message());
  size_t at = 0;
  for (int r = 0; r < n; ++r) {
    for (size_t i = 0; i < static_cast<size_t>(recv_sizes[static_cast<size_t>(r)]); ++i, ++at) {
      if (recv[at] != PatternByte(r, me, i)) return Differs("all-to-all", r, i);
    }
  }
  return "";
}

inline std::string CheckBroadcast(Communicator& comm, int root, size_t bytes) {
  std::vector<uint8_t> data(bytes, 0xEE);
  if (comm.rank() == root) {
    for (size_t i = 0; i < bytes; ++i) data[i] = PatternByte(root, -1, i);
  }
  const Status status = comm.Broadcast(data, root, {1, -1, "broadcast"});
  if (!status.ok()) return std::string(status.message());
  for (size_t i = 0; i < bytes; ++i) {
    if (data[i] != PatternByte(root, -1, i)) return Differs("broadcast", root, i);
  }
  return "";
}

// Three operations under way at once, waited for in an order that differs between ranks.
inline std::string CheckOverlappingTickets(Communicator& comm) {
  const size_t n = static_cast<size_t>(comm.size());
  const std::vector<int64_t> sizes(n, 3);
  std::vector<std::vector<uint8_t>> mine(3), all(3, std::vector<uint8_t>(3 * n));
  std::vector<std::unique_ptr<Ticket>> tickets;
  for (int k = 0; k < 3; ++k) {
    const size_t op = static_cast<size_t>(k);
    mine[op].assign(3, static_cast<uint8_t>(10 * comm.rank() + k));
    tickets.push_back(comm.StartAllGatherV(mine[op], sizes, all[op], {7, k, "gather"}));
  }
  for (size_t k = 0; k < 3; ++k) {
    const Status status = tickets[(k + static_cast<size_t>(comm.rank())) % 3]->Wait();
    if (!status.ok()) return std::string(status.message());
  }
  for (size_t k = 0; k < 3; ++k) {
    for (size_t i = 0; i < 3 * n; ++i) {
      if (all[k][i] != 10 * (i / 3) + k) return Differs("overlapping", static_cast<int>(i / 3), i);
    }
  }
  return "";
}

// Five buckets under way at once, started in an order of each rank's own that changes with `round`.
inline std::string CheckBucketsInAnyOrder(Communicator& comm, int round) {
  constexpr int kBuckets = 5;
  const size_t n = static_cast<size_t>(comm.size());
  std::vector<std::vector<uint8_t>> mine(kBuckets), all(kBuckets);
  std::vector<std::vector<int64_t>> sizes(kBuckets);
  std::vector<std::unique_ptr<Ticket>> tickets(kBuckets);
  for (int i = 0; i < kBuckets; ++i) {
    const int b = (i * (comm.rank() + 1) + round) % kBuckets;  // 5 is prime
    const size_t at = static_cast<size_t>(b), bytes = 50 + at;
    for (size_t k = 0; k < bytes; ++k) mine[at].push_back(PatternByte(comm.rank(), b, k));
    sizes[at].assign(n, static_cast<int64_t>(bytes));
    all[at].resize(bytes * n);
    tickets[at] =
        comm.StartAllGatherV(mine[at], sizes[at], all[at], {1, static_cast<int32_t>(b), "gather"});
  }
  for (size_t b = 0; b < kBuckets; ++b) {
    const Status status = tickets[b]->Wait();
    if (!status.ok()) return std::string(status.message());
    for (size_t i = 0; i < all[b].size(); ++i) {
      const int from = static_cast<int>(i / (50 + b));
      if (all[b][i] != PatternByte(from, static_cast<int>(b), i % (50 + b))) {
        return Differs("buckets in any order", from, i);
      }
    }
  }
  return "";
}

inline std::string CheckControlVerbs(Communicator& comm) {
  const int n = comm.size(), me = comm.rank();
  const auto all = comm.AllGatherInt(100 + me, {1, -1, "ints"});
  if (!all.ok()) return std::string(all.status().message());
  for (int r = 0; r < n; ++r) {
    if ((*all)[static_cast<size_t>(r)] != 100 + r) return "AllGatherInt: wrong value";
  }
  std::vector<double> values = {1.0 + me, 0.5};
  const Status sum = comm.AllReduceSum(values, {1, -1, "sum"});
  if (!sum.ok()) return std::string(sum.message());
  if (values[0] != n * (n + 1) / 2.0 || values[1] != 0.5 * n) return "AllReduceSum: wrong value";
  const Status barrier = comm.Barrier({1, -1, "barrier"});
  if (!barrier.ok()) return std::string(barrier.message());
  if (!comm.Agree(42, "plan").ok()) return "Agree: refused equal fingerprints";
  if (n == 1) return "";
  const Status differing = comm.Agree(me == n - 1 ? 43 : 42, "plan");
  const std::string expected =
      "rank " + std::to_string(n - 1) + " has a different plan than rank 0";
  if (differing.message() != expected) return "Agree: " + std::string(differing.message());
  return "";
}

// Even ranks, odd ranks, and none from rank 4 on: their own verbs, beside those of the whole.
inline std::string CheckSplit(Communicator& comm) {
  const int me = comm.rank(), members = std::min(4, comm.size());
  auto part = comm.Split(me < 4 ? me % 2 : -1);
  if (!part.ok()) return std::string(part.status().message());
  if (me >= 4) return *part == nullptr ? "" : "Split: a part for a negative color";
  if ((*part)->rank() != me / 2) return "Split: wrong rank";
  if ((*part)->size() != (members + 1 - me % 2) / 2) return "Split: wrong size";
  const auto all = (*part)->AllGatherInt(me, {1, 3, "part"});
  if (!all.ok()) return std::string(all.status().message());
  for (size_t r = 0; r < all->size(); ++r) {
    if ((*all)[r] != 2 * static_cast<int64_t>(r) + me % 2) return "Split: another part's value";
  }
  return CheckAllToAllV(**part, 97);
}

// All of the above over sizes that divide by nothing; "" or the first complaint.
inline std::string CheckVerbs(Communicator& comm) {
  std::string wrong;
  const auto keep = [&wrong](std::string found) {
    if (wrong.empty()) wrong = std::move(found);
  };
  for (const bool in_place : {false, true}) {
    for (const bool skip_odd : {false, true}) {
      keep(CheckAllGatherV(comm, 0, 0, skip_odd, in_place));
      keep(CheckAllGatherV(comm, 0, 1, skip_odd, in_place));
      keep(CheckAllGatherV(comm, 7, 13, skip_odd, in_place));
      keep(CheckAllGatherV(comm, 100003, 17, skip_odd, in_place));
    }
  }
  for (const int64_t scale : {0, 1, 97, 65537}) keep(CheckAllToAllV(comm, scale));
  for (int root = 0; root < comm.size(); ++root) {
    keep(CheckBroadcast(comm, root, 0));
    keep(CheckBroadcast(comm, root, 100001));
  }
  keep(CheckOverlappingTickets(comm));
  keep(CheckControlVerbs(comm));
  keep(CheckSplit(comm));
  keep(CheckSplit(comm));
  return wrong;
}

}  // namespace tw
