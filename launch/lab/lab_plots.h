#pragma once
// Pictures and the index page are drawn by launch/plot --lab, a Python program beside this one.

#include <string>
#include <vector>

namespace tw {

// Draws what `names` left in the folder `out` and writes out/index.html. Never fails: a line on
// stderr says what is missing (Python, matplotlib, launch/plot) and how to get the rest.
void DrawLab(const std::string& out, const std::vector<std::string>& names);

}  // namespace tw
