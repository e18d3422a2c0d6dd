#include "launch/grouping.h"

#include "core/engine/two_level.h"

namespace tw {

int Grouping::exchanging(int ranks) const {
  return group_of.empty() ? ranks : CountGroups(group_of);
}

StatusOr<Grouping> ChooseGrouping(const Settings& settings, const std::vector<int64_t>& hosts) {
  const CommConfig& comm = settings.comm;
  Grouping out;
  if (comm.hierarchical == "off") {
    if (comm.group_size > 0) {
      out.notes.push_back("comm.group_size does nothing with comm.hierarchical = \"off\"");
    }
    return out;
  }
  std::vector<int64_t> marks = hosts;
  for (size_t r = 0; comm.group_size > 0 && r < marks.size(); ++r) {
    marks[r] = static_cast<int64_t>(r) / comm.group_size;
  }
  const std::vector<int> groups = NumberGroups(marks);
  const int count = CountGroups(groups), ranks = static_cast<int>(marks.size());
  const bool asked = comm.hierarchical == "on" || comm.group_size > 0;
  if (count <= 1 || count == ranks) {
    if (asked && ranks > 1) {
      out.notes.push_back(
          std::string("comm.hierarchical does nothing: ") +
          (count == 1 ? "all ranks are in one group" : "every group has one rank only"));
    }
    return out;
  }
  if (settings.planner != "none") {
    if (asked) {
      return ConfigError("planner.name = \"" + settings.planner +
                         "\" measures the message of every rank, and comm.hierarchical lets a " +
                         "group send one: use planner.name = \"none\" or comm.hierarchical = "
                         "\"off\"");
    }
    out.notes.push_back("the exchange is flat although hosts have several ranks: planner " +
                        settings.planner + " measures the message of every rank");
    return out;
  }
  out.group_of = groups;
  out.notes.push_back(std::to_string(ranks) + " ranks in " + std::to_string(count) +
                      " groups: gradients are averaged inside, each group sends one message");
  return out;
}

}  // namespace tw
