#include "launch/lab/lab_plots.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <filesystem>

extern char** environ;

namespace tw {
namespace {

namespace fs = std::filesystem;

// launch/plot of the tree this program was built in; empty for an installed one.
std::string PlotTool() {
  std::error_code error;
  fs::path folder = fs::read_symlink("/proc/self/exe", error).parent_path();
  for (int level = 0; level < 5 && folder.has_relative_path(); ++level) {
    const fs::path tool = folder / "launch" / "plot";
    if (fs::is_regular_file(tool, error) && ::access(tool.c_str(), X_OK) == 0) return tool.string();
    folder = folder.parent_path();
  }
  return "";
}

}  // namespace

void DrawLab(const std::string& out, const std::vector<std::string>& names) {
  const std::string tool = PlotTool();
  if (tool.empty()) {
    std::fprintf(stderr,
                 "lab: launch/plot is not beside this program; in tightwire's tree "
                 "`launch/plot --lab %s` draws the pictures\n",
                 out.c_str());
    return;
  }
  std::vector<std::string> words = {tool, "--lab", out};
  words.insert(words.end(), names.begin(), names.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  // Standard output belongs to the claims.
  posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
  pid_t child = 0;
  const int error = posix_spawn(&child, tool.c_str(), &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  int code = 0;
  if (error == 0) ::waitpid(child, &code, 0);
  // Anything else that went wrong the tool has said itself; 127 is env's word for "no python3".
  if (error != 0 || (WIFEXITED(code) && WEXITSTATUS(code) == 127)) {
    std::fprintf(stderr, "lab: no pictures: %s does not start%s; it needs python3\n", tool.c_str(),
                 error ? (std::string(": ") + std::strerror(error)).c_str() : "");
  }
}

}  // namespace tw
