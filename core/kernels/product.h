#pragma once
// Products of small dense matrices, row after row in memory, for layers of some tens of units: the
// columns of the right factor lie in registers while the inner dimension goes by.
//
// Every sum is formed in rising order of its index, multiply and add apart, and terms whose x is 0
// are left out (so 0 times infinity is 0): the bits do not depend on the vector width, and
// pictures, half of whose pixels are 0, cost half. Spans do not overlap. Thread safe.

#include <cstdint>
#include <span>

namespace tw::kernels {

// y[r][c] += sum_i x[r][i] * w[i][c];  x: [rows, inner], w: [inner, columns], y: [rows, columns]
void AddProduct(std::span<const float> x, std::span<const float> w, std::span<float> y, size_t rows,
                size_t inner, size_t columns);

// w[i][c] += sum_r x[r][i] * y[r][c]: the product with x transposed. Shapes as above.
void AddTransposedProduct(std::span<const float> x, std::span<const float> y, std::span<float> w,
                          size_t rows, size_t inner, size_t columns);

}  // namespace tw::kernels
