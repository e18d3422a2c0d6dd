#include "launch/peer_process.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <string_view>

namespace tw {
namespace {

// In front of every script: what is missing is a line for us, and no traceback.
constexpr const char* kNeeds = R"py(
try:
    import torch
except ImportError as missing:
    print(f"missing: {missing}", flush=True)
    raise SystemExit(0)
)py";
constexpr std::string_view kMissing = "missing: ";

}  // namespace

StatusOr<std::unique_ptr<PeerProcess>> PeerProcess::Start(
    const std::string& python, const std::string& script,
    const std::vector<std::string>& arguments) {
  int to[2], from[2];
  if (pipe(to) != 0 || pipe(from) != 0) return BugError("bench: no pipe");
  std::vector<std::string> words = {python, "-c", kNeeds + script};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::unique_ptr<PeerProcess> peer(new PeerProcess());
  peer->python_ = python;
  std::signal(SIGPIPE, SIG_IGN);  // a peer that ended is told by its missing line
  peer->child_ = fork();
  if (peer->child_ == 0) {
    dup2(to[0], STDIN_FILENO);
    dup2(from[1], STDOUT_FILENO);
    for (int fd : {to[0], to[1], from[0], from[1]}) close(fd);
    execvp(argv[0], argv.data());
    _exit(127);
  }
  close(to[0]);
  close(from[1]);
  peer->to_ = fdopen(to[1], "w");
  peer->from_ = fdopen(from[0], "r");
  TW_ASSIGN_OR_RETURN(const std::string ready, peer->ReadLine());
  if (ready.starts_with(kMissing)) {
    return ConfigError("bench.python = \"" + python +
                       "\" does not run the peer: " + ready.substr(kMissing.size()));
  }
  if (ready == "none") return std::unique_ptr<PeerProcess>();
  return peer;
}

PeerProcess::~PeerProcess() {
  if (to_) std::fclose(to_);  // end of its input: it ends
  if (from_) std::fclose(from_);
  int code = 0;
  if (child_ > 0) waitpid(child_, &code, 0);
}

StatusOr<double> PeerProcess::Turn(const std::string& word) {
  std::fputs((word + "\n").c_str(), to_);
  std::fflush(to_);
  TW_ASSIGN_OR_RETURN(const std::string line, ReadLine());
  return std::strtod(line.c_str(), nullptr);
}

StatusOr<std::string> PeerProcess::ReadLine() {
  char line[256];
  if (child_ < 0 || !std::fgets(line, sizeof(line), from_)) {
    return ConfigError("bench.python = \"" + python_ + "\" does not run the peer");
  }
  std::string text = line;
  while (!text.empty() && text.back() == '\n') text.pop_back();
  return text;
}

}  // namespace tw
