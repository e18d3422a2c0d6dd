#pragma once
// Eigenvalues of a small symmetric matrix.

#include <span>

namespace tw::kernels {

// Cyclic Jacobi rotations in fp64 until what is off the diagonal is rounding. `a` [n, n] row-major
// is symmetric and is destroyed; `values` [n], descending. About 20 n^3 multiplications: for n up
// to a few hundred. Thread safe.
void SymmetricEigenvalues(std::span<double> a, std::span<double> values);

}  // namespace tw::kernels
