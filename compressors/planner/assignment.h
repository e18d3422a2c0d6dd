#pragma once
// The choice of one option per item at the smallest total size within a budget of total error: the
// problem in the middle of L-GreCo (Markov et al., MLSys 2024, arXiv 2210.17357).
//
//   minimise sum_l size[l][c_l]   subject to   sum_l error[l][c_l] <= budget
//
// A dynamic program over the error, cut into D = 10000 buckets of b = budget / D:
//   q[l][c] = min(ceil(error / b), D)
//   best[l][e] = min over c with q <= e of best[l-1][e - q] + size[l][c]
// Errors are rounded up, so that what it finds is within the budget, and is at most one bucket an
// item away from the best there is. The uniform assignment is a candidate of its own: the result is
// never larger than it where it is within the budget.
//
// Time O(items x options x D), memory 8 D bytes an item. Thread safe.
// Left out: the reference's quirks (its first item needs a strictly smaller error than the others;
// options above the budget are cut to it instead of dropped; NaN is read as zero; an error of zero
// takes a bucket).

#include <span>
#include <vector>

namespace tw {

struct AssignmentItem {
  std::vector<double> size;   // one an option, >= 0
  std::vector<double> error;  // one an option, >= 0; NaN: this option must not be taken
  int uniform = 0;            // its option in the uniform assignment
};

struct Assignment {
  bool feasible = false;    // false: nothing is within the budget, and choice is the uniform one
  std::vector<int> choice;  // one an item
  double size = 0;          // totals of `choice`
  double error = 0;
};

// Equal totals: the one with the lower option at the last item in which they differ; the uniform
// one only where it is strictly smaller. An item whose uniform option has no error (NaN) keeps that
// option and is not counted. REQUIRES: every item has an option; buckets >= 1.
Assignment Assign(std::span<const AssignmentItem> items, double budget, int buckets = 10000);

// sum_l error[l][uniform_l], items without one left out.
double UniformError(std::span<const AssignmentItem> items);

}  // namespace tw
