// int8: linear layers keep their input in 8 bits, one scale a block of 128 features of a token.
//   s = max |x| / 127;   q = round(x / s), ties to even;   dW = dy^T (s q)
// |s q - x| <= s/2. Kept: q int8 [tokens, n], s fp32 [tokens, ceil(n / 128)]; 1.03 bytes a number.
// A block that holds something not finite gives gradients that are not.

#include <ATen/ATen.h>

#include <algorithm>

#include "core/api/activation_codec.h"
#include "core/api/tensor_scope.h"
#include "core/kernels/int8_block.h"

namespace tw {
namespace {

constexpr int64_t kTileFloats = 1 << 17;        // of x in full precision at once
constexpr int64_t kQueuedTileFloats = 1 << 22;  // on a device: few and large products

class Int8 : public ActivationCodec {
 public:
  std::vector<at::Tensor> Pack(const at::Tensor& x, const InputKey&) const override {
    const int64_t tokens = x.size(0), n = x.size(1), blocks = kernels::Int8Blocks(n);
    const at::Tensor q = at::empty({tokens, n}, x.options().dtype(at::kChar)),
                     s = at::empty({tokens, blocks}, x.options().dtype(at::kFloat));
    ForTiles(x, [&](int64_t from, int64_t rows) {
      const at::Tensor tile = x.narrow(0, from, rows).to(at::kFloat);
      const TensorScope scope(x);
      kernels::QuantizeInt8(tile.const_data_ptr<float>(), rows, n, q.data_ptr<int8_t>() + from * n,
                            s.data_ptr<float>() + from * blocks);
    });
    return {q, s};
  }

  at::Tensor WeightGradient(std::span<const at::Tensor> packed, int64_t n,
                            const at::Tensor& dy) const override {
    const int64_t blocks = packed[1].size(1);
    at::Tensor gradient = at::zeros({dy.size(1), n}, dy.options().dtype(at::kFloat));
    ForTiles(packed[0], [&](int64_t from, int64_t rows) {
      const at::Tensor tile = at::empty({rows, n}, gradient.options());
      {
        const TensorScope scope(tile);
        kernels::DequantizeInt8(packed[0].const_data_ptr<int8_t>() + from * n,
                                packed[1].const_data_ptr<float>() + from * blocks, rows, n,
                                tile.data_ptr<float>());
      }
      gradient.addmm_(dy.narrow(0, from, rows).to(at::kFloat).t(), tile);
    });
    return gradient.to(dy.scalar_type());
  }

 private:
  // Rows of `all` [tokens, n], some at a time.
  template <class F>
  static void ForTiles(const at::Tensor& all, F&& body) {
    const int64_t tokens = all.size(0), n = all.size(1);
    const int64_t floats = QueueOf(all) ? kQueuedTileFloats : kTileFloats;
    const int64_t most = std::max<int64_t>(1, floats / std::max<int64_t>(1, n));
    for (int64_t from = 0; from < tokens; from += most) body(from, std::min(most, tokens - from));
  }
};

StatusOr<std::unique_ptr<ActivationCodec>> Create(const NoConfig&) {
  return std::make_unique<Int8>();
}

TW_REGISTER(ActivationCodec, int8, 0, NoConfig, Create,
            "linear layers keep their inputs in 8 bits, a scale for 128 features");

}  // namespace
}  // namespace tw
