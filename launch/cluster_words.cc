#include "launch/cluster_words.h"

#include <cstdlib>
#include <map>
#include <set>

#include "launch/link_rate.h"

namespace tw {
namespace {

StatusOr<double> ParseLatency(const std::string& text) {
  char* end = nullptr;
  const double number = std::strtod(text.c_str(), &end);
  const std::map<std::string, double> units = {{"us", 1e-3}, {"ms", 1}, {"s", 1e3}};
  const auto unit = units.find(end);
  if (unit == units.end() || !(number >= 0) || number > 1e6) {
    return ConfigError("latency = \"" + text + "\"; a number and us, ms or s is allowed, as 20us");
  }
  return number * unit->second;
}

}  // namespace

std::vector<int64_t> ClusterWords::HostOfRanks() const {
  std::vector<int64_t> out;
  for (int64_t r = 0; r < ranks; ++r) out.push_back(hosts ? r * hosts / ranks : r);
  return out;
}

StatusOr<ClusterWords> TakeClusterWords(std::vector<std::string>* words, int default_ranks) {
  ClusterWords out;
  out.ranks = default_ranks;
  std::map<std::string, std::string> given;
  std::erase_if(*words, [&](const std::string& word) {
    const size_t equals = word.find('=');
    const std::string key = word.substr(0, equals);
    static const std::set<std::string> known = {"ranks",   "hosts", "rate",
                                                "latency", "run",   "times"};
    if (!known.count(key)) return false;
    given[key] = equals == std::string::npos ? "" : word.substr(equals + 1);
    return true;
  });
  if (given.count("ranks")) {
    const std::string& text = given["ranks"];
    char* end = nullptr;
    const long ranks = std::strtol(text.c_str(), &end, 10);
    if (text.empty() || *end || ranks < 1 || ranks > 1000000) {
      return ConfigError("command line: ranks=" + text + ": ranks is a number from 1 to 1000000");
    }
    out.ranks = static_cast<int>(ranks);
  }
  if (given.count("hosts")) {
    const std::string& text = given["hosts"];
    char* end = nullptr;
    const long hosts = std::strtol(text.c_str(), &end, 10);
    if (text.empty() || *end || hosts < 1 || hosts > out.ranks) {
      return ConfigError("command line: hosts=" + text + ": hosts is a number from 1 to ranks");
    }
    out.hosts = static_cast<int>(hosts);
  }
  if (given.count("rate")) {
    TW_ASSIGN_OR_RETURN(const double bytes_per_s, ParseLinkRate(given["rate"]));
    out.bytes_per_ms = bytes_per_s / 1e3;
  } else if (given.count("latency") || given.count("run")) {
    return ConfigError("command line: latency= and run= are for rate=, as rate=1gbit");
  }
  if (given.count("latency")) {
    TW_ASSIGN_OR_RETURN(out.latency_ms, ParseLatency(given["latency"]));
  }
  out.run = given["run"];
  if (given.count("times")) {
    if (out.run.empty() || (given["times"] != "core" && given["times"] != "wall")) {
      return ConfigError("command line: times=core or times=wall, of the run that run= names");
    }
    out.wall = given["times"] == "wall";
  }
  return out;
}

}  // namespace tw
