#include "launch/lab/lab_jobs.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>

#include "launch/lab/lab_view.h"

extern char** environ;

namespace tw {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kTickMs = 200;

// JSON has no infinities: they go as text.
Json Number(double value) {
  if (std::isfinite(value)) return value;
  return std::to_string(value);
}

double ReadNumber(const Json& json) {
  return json.is_string() ? std::strtod(json.get<std::string>().c_str(), nullptr)
                          : json.get<double>();
}

Json StatusJson(const Status& status) {
  if (status.ok()) return nullptr;
  return {{"code", static_cast<int>(status.code())},
          {"message", std::string(status.message())},
          {"fault", static_cast<int>(FaultOf(status))}};
}

Status ReadStatus(const Json& json) {
  if (json.is_null()) return OkStatus();
  return WithFault(Status(static_cast<absl::StatusCode>(json.at("code").get<int>()),
                          json.at("message").get<std::string>()),
                   static_cast<Fault>(json.at("fault").get<int>()));
}

struct Worker {
  LabJob job;
  pid_t pid = 0;
  int from = -1;
  std::string said;
};

StatusOr<Worker> Start(const LabJob& job, std::vector<std::string> words) {
  int ends[2];
  // Not inherited by workers that start later: the end of a pipe is the end of its worker.
  if (::pipe2(ends, O_CLOEXEC) != 0) {
    return BugError(std::string("no pipe: ") + std::strerror(errno));
  }
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  Worker worker{.job = job, .from = ends[0]};
  // The file this process runs, even if another has taken its place meanwhile.
  const int error =
      ::posix_spawn(&worker.pid, "/proc/self/exe", &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  if (error != 0) {
    ::close(ends[0]);
    return BugError(std::string("no process starts: ") + std::strerror(error));
  }
  return worker;
}

LabResult End(Worker& worker) {
  ::close(worker.from);
  int code = 0;
  while (::waitpid(worker.pid, &code, 0) < 0 && errno == EINTR) {
  }
  StatusOr<LabResult> result = ReadResultJson(worker.said);
  if (result.ok()) return std::move(result).value();
  LabResult died;
  died.record.name = worker.job.name;
  const std::string how = WIFSIGNALED(code)
                              ? std::string("was ended by a signal: ") + strsignal(WTERMSIG(code))
                              : "ended with code " + std::to_string(WEXITSTATUS(code));
  died.status = BugError("its process " + how);
  died.record.error = std::string(died.status.message());
  died.text = ClaimTable(died.record);
  return died;
}

}  // namespace

std::string ResultJson(const LabResult& result) {
  Json claims = Json::array();
  for (const Claim& c : result.record.claims) {
    claims.push_back({{"claim", c.claim},
                      {"measured", Number(c.measured)},
                      {"threshold", c.threshold},
                      {"pass", c.pass},
                      {"does_not_hold", c.does_not_hold}});
  }
  return Json({{"name", result.record.name},
               {"seconds", result.record.seconds},
               {"error", result.record.error},
               {"claims", std::move(claims)},
               {"text", result.text},
               {"status", StatusJson(result.status)},
               {"written", StatusJson(result.written)},
               {"took_rows", result.took_rows},
               {"took_images", result.took_images}})
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

StatusOr<LabResult> ReadResultJson(const std::string& line) {
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  try {
    LabResult out;
    out.record.name = json.at("name").get<std::string>();
    out.record.seconds = json.at("seconds").get<double>();
    out.record.error = json.at("error").get<std::string>();
    for (const Json& c : json.at("claims")) {
      out.record.claims.push_back({.claim = c.at("claim").get<std::string>(),
                                   .measured = ReadNumber(c.at("measured")),
                                   .threshold = c.at("threshold").get<std::string>(),
                                   .pass = c.at("pass").get<bool>(),
                                   .does_not_hold = c.at("does_not_hold").get<std::string>()});
    }
    out.text = json.at("text").get<std::string>();
    out.status = ReadStatus(json.at("status"));
    out.written = ReadStatus(json.at("written"));
    out.took_rows = json.at("took_rows").get<bool>();
    out.took_images = json.at("took_images").get<bool>();
    return out;
  } catch (const Json::exception& e) {
    return BugError(std::string("not a worker's result: ") + e.what());
  }
}

void SortJobs(std::vector<LabJob>& jobs) {
  std::stable_sort(jobs.begin(), jobs.end(), [](const LabJob& a, const LabJob& b) {
    return a.alone != b.alone ? b.alone : a.expected > b.expected;
  });
}

Status RunJobs(const std::vector<LabJob>& jobs, int at_once,
               const std::function<std::vector<std::string>(const std::string& name)>& command,
               const LabJobsWatch& watch) {
  std::vector<Worker> running;
  size_t next = 0;
  Status started;
  const auto may_start = [&] {
    if (next == jobs.size() || !started.ok()) return false;
    const bool alone = jobs[next].alone || (!running.empty() && running[0].job.alone);
    return running.empty() || (!alone && running.size() < static_cast<size_t>(at_once));
  };
  while (true) {
    while (may_start()) {
      StatusOr<Worker> worker = Start(jobs[next], command(jobs[next].name));
      started = worker.status();
      if (!started.ok()) break;  // those that run are waited for
      watch.began(jobs[next++]);
      running.push_back(std::move(worker).value());
    }
    if (running.empty()) return started;
    std::vector<pollfd> polls;
    for (const Worker& worker : running) polls.push_back({worker.from, POLLIN, 0});
    ::poll(polls.data(), polls.size(), kTickMs);
    for (size_t i = polls.size(); i-- > 0;) {
      if (polls[i].revents == 0) continue;
      char bytes[4096];
      const ssize_t n = ::read(running[i].from, bytes, sizeof(bytes));
      if (n > 0) running[i].said.append(bytes, static_cast<size_t>(n));
      if (n > 0 || (n < 0 && errno == EINTR)) continue;
      LabResult result = End(running[i]);
      running.erase(running.begin() + static_cast<ptrdiff_t>(i));
      watch.ended(std::move(result));
    }
    watch.tick();
  }
}

void EndWithParent() {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  // It may have died before the line above: then nobody reads what this process will say.
  pollfd out{.fd = STDOUT_FILENO, .events = 0, .revents = 0};
  if (::poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0) ::_exit(1);
}

}  // namespace tw
