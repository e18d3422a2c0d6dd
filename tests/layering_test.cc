// The table of ARCHITECTURE section 1 against every #include "..." of the tree, and the sizes that
// keep files readable.

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace tw {
namespace {

namespace fs = std::filesystem;

// Room -> rooms it may include from. core/ is divided, the others are rooms as a whole.
const std::map<std::string, std::set<std::string>>& AllowedRooms() {
  static const auto* table = [] {
    auto* t = new std::map<std::string, std::set<std::string>>{
        {"core/base", {}},
        {"core/kernels", {"core/base"}},
        {"core/data", {"core/base"}},
        {"core/api", {"core/base", "core/kernels"}},
        {"core/nn", {"core/base", "core/kernels", "core/api"}},
        {"core/engine", {"core/base", "core/kernels", "core/data", "core/api", "core/nn"}}};
    std::set<std::string> core;
    for (const auto& [room, allowed] : *t) core.insert(room);
    for (const char* room : {"comm", "compressors", "optim"}) (*t)[room] = core;
    std::set<std::string> below = core;
    below.insert({"comm", "compressors", "optim"});
    (*t)["launch"] = below;
    below.insert("launch");
    (*t)["examples"] = below;
    for (auto& [room, allowed] : *t) allowed.insert(room);
    return t;
  }();
  return *table;
}

// "core/engine" for core/engine/plan.h, "comm" for comm/mpi/x.h; empty for what is in no room.
std::string RoomOf(const std::string& path) {
  const size_t slash = path.find('/');
  if (slash == std::string::npos) return "";
  std::string room = path.substr(0, slash);
  if (room == "core") room = path.substr(0, path.find('/', slash + 1));
  return room;
}

// What is wrong with `file` including `target`; empty when nothing is.
std::string IncludeFault(const std::string& file, const std::string& target) {
  const std::string from = RoomOf(file), to = RoomOf(target);
  if (to.empty()) return "is not written from the repository root";
  static const std::set<std::string> shelf = {"absl", "hwy", "gtest", "gmock", "torch"};
  if (shelf.count(to)) return "";
  if (to == "tests") return from == "tests" ? "" : "is of the tests, which nobody includes";
  if (AllowedRooms().count(to) == 0) return "is in no room of this house";
  if (from == "tests") return "";
  const auto it = AllowedRooms().find(from);
  if (it == AllowedRooms().end()) return "comes from a room the table does not know: " + from;
  return it->second.count(to) ? "" : from + " may not know " + to;
}

bool MayIncludeTorch(const std::string& file) {
  return !file.ends_with(".h") || RoomOf(file) == "core/nn" || file.ends_with("/pch.h");
}

std::vector<std::string> LinesOf(const fs::path& path) {
  std::ifstream in(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

struct SourceFile {
  std::string path;  // from the root
  std::vector<std::string> lines;
};

const std::vector<SourceFile>& Sources() {
  static const auto* sources = [] {
    const fs::path root = TW_SOURCE_DIR;
    const std::set<std::string> kinds = {".h", ".cc", ".cu", ".cuh", ".py", ".sh", ".cmake"};
    auto* out = new std::vector<SourceFile>;
    for (const char* top :
         {"core", "comm", "compressors", "optim", "launch", "examples", "tests"}) {
      for (const auto& entry : fs::recursive_directory_iterator(root / top)) {
        // The shell tools of launch/ have no extension.
        if (!entry.is_regular_file()) continue;
        const std::string kind = entry.path().extension().string();
        if (!kinds.count(kind) && !(kind.empty() && std::string(top) == "launch")) continue;
        out->push_back({fs::relative(entry.path(), root).string(), LinesOf(entry.path())});
      }
    }
    std::sort(out->begin(), out->end(),
              [](const auto& a, const auto& b) { return a.path < b.path; });
    return out;
  }();
  return *sources;
}

// The file in #include "x", or in #include <x> with angle = true; empty when the line has none.
std::string IncludedBy(const std::string& line, bool angle = false) {
  const size_t hash = line.find_first_not_of(" \t");
  if (hash == std::string::npos || line.compare(hash, 8, "#include") != 0) return "";
  const size_t open = line.find(angle ? '<' : '"', hash);
  if (open == std::string::npos) return "";
  const size_t close = line.find(angle ? '>' : '"', open + 1);
  return close == std::string::npos ? "" : line.substr(open + 1, close - open - 1);
}

TEST(Layering, TheTableRefusesWhatItShould) {
  const std::vector<std::pair<std::string, std::string>> bad = {
      {"core/base/x.cc", "core/api/communicator.h"},
      {"core/kernels/x.cc", "core/api/compressor.h"},
      {"core/api/x.h", "core/nn/layers.h"},
      {"core/nn/x.cc", "core/engine/trainer.h"},
      {"core/data/x.cc", "core/api/task.h"},
      {"core/engine/x.cc", "comm/gather.h"},
      {"comm/x.cc", "compressors/cast.h"},
      {"compressors/x.cc", "optim/elementwise.h"},
      {"optim/x.cc", "launch/compose.h"},
      {"launch/x.cc", "examples/x.h"},
      {"launch/x.cc", "tests/comm/thread_group.h"},
      {"core/api/x.h", "status.h"},
      {"core/api/x.h", "elsewhere/status.h"}};
  for (const auto& [file, target] : bad) {
    EXPECT_NE(IncludeFault(file, target), "") << file << " includes " << target;
  }
  const std::vector<std::pair<std::string, std::string>> good = {
      {"core/engine/x.cc", "core/nn/layers.h"},
      {"core/api/x.h", "core/kernels/message_view.h"},
      {"comm/mpi/x.cc", "comm/timeout_error.h"},
      {"launch/x.cc", "comm/mpi/mpi_session.h"},
      {"tests/comm/x.cc", "tests/comm/thread_group.h"},
      {"core/base/x.h", "absl/status/status.h"}};
  for (const auto& [file, target] : good) EXPECT_EQ(IncludeFault(file, target), "") << target;
  EXPECT_EQ(IncludedBy("  #include \"core/a.h\"  // why"), "core/a.h");
  EXPECT_EQ(IncludedBy("#include <torch/torch.h>", true), "torch/torch.h");
  EXPECT_FALSE(MayIncludeTorch("core/engine/trainer.h"));
}

TEST(Layering, EveryIncludeGoesDownwards) {
  size_t seen = 0;
  for (const SourceFile& file : Sources()) {
    for (size_t i = 0; i < file.lines.size(); ++i) {
      const std::string target = IncludedBy(file.lines[i]);
      if (target.empty()) continue;
      ++seen;
      const std::string fault = IncludeFault(file.path, target);
      EXPECT_EQ(fault, "") << file.path << ":" << i + 1 << ": " << target << " " << fault;
    }
  }
  EXPECT_GT(seen, 300u);  // the walk found the tree
}

// Nobody includes torch/torch.h, which is all of LibTorch, and of headers only those of models what
// is large.
TEST(Layering, HeadersOutsideOfModelsKeepTorchOut) {
  for (const SourceFile& file : Sources()) {
    const bool may = RoomOf(file.path) == "tests" || MayIncludeTorch(file.path);
    for (size_t i = 0; i < file.lines.size(); ++i) {
      EXPECT_NE(IncludedBy(file.lines[i], true), "torch/torch.h") << file.path << ":" << i + 1;
      EXPECT_TRUE(may || IncludedBy(file.lines[i]) != "core/nn/torch.h")
          << file.path << ":" << i + 1;
    }
  }
}

TEST(Layering, NoFileIsLongerThan500Lines) {
  for (const SourceFile& file : Sources()) {
    EXPECT_LE(file.lines.size(), 500u) << file.path << " is to be split by noun";
  }
}

TEST(Layering, TheHotPathCanBeReadInOneSitting) {
  size_t files = 0, lines = 0;
  for (const SourceFile& file : Sources()) {
    for (const char* part : {"trainer", "gradient_reducer", "bucket_pipeline"}) {
      const std::string stem = std::string("core/engine/") + part;
      if (file.path != stem + ".h" && file.path != stem + ".cc") continue;
      ++files;
      lines += file.lines.size();
    }
  }
  EXPECT_EQ(files, 6u);
  EXPECT_LE(lines, 1100u);
}

}  // namespace
}  // namespace tw
