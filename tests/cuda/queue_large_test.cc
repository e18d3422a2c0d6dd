// Tensors of more elements than 32 bits count, where a device has the memory: a few numbers that
// are not zero, the last one among them, are found where they should be.
#include <vector>

#include "core/kernels/elementwise.h"
#include "core/kernels/quantize.h"
#include "core/kernels/topk.h"
#include "tests/cuda/queue_fixture.h"

namespace tw {
namespace {

class QueueOfLargeTensors : public testing::Test {
 protected:
  QueueOfLargeTensors() {
    auto memory = kernels::MakeDeviceMemory(0);
    TW_CHECK_OK(memory);
    memory_ = std::move(*memory);
    auto queue = kernels::MakeDeviceQueue({0, kernels::QueueStream::kOwn, memory_.get()});
    TW_CHECK_OK(queue);
    queue_ = std::move(*queue);
  }
  std::span<float> Zeros() {
    blocks_.emplace_back(memory_.get(), n_ * sizeof(float));
    queue_->Zero(blocks_.back().data(), n_ * sizeof(float));
    return {reinterpret_cast<float*>(blocks_.back().data()), n_};
  }
  // 1, -2, 3, ... at the places.
  std::span<float> Marked() {
    const std::span<float> x = Zeros();
    for (size_t i = 0; i < places_.size(); ++i) Put(x, places_[i], ValueAt(i));
    return x;
  }
  static float ValueAt(size_t i) { return static_cast<float>(i + 1) * (i % 2 ? -1.0f : 1.0f); }
  void Put(std::span<float> x, size_t at, float value) {
    queue_->CopyIn(x.data() + at, &value, sizeof(value));
  }
  float Get(std::span<const float> x, size_t at) {
    float value = 0;
    queue_->CopyOut(&value, x.data() + at, sizeof(value));
    return value;
  }
  void ExpectMarks(std::span<const float> x, float factor) {
    for (size_t i = 0; i < places_.size(); ++i) {
      EXPECT_NEAR(Get(x, places_[i]), factor * ValueAt(i), 1e-5) << places_[i] << " of " << n_;
    }
    EXPECT_EQ(Get(x, 1), 0);
    EXPECT_EQ(Get(x, n_ - 2), 0);
  }

  TestDevice device_;
  const size_t n_ = TestDevice::LargeNumel();
  const std::vector<size_t> places_ = {0, 4096, n_ / 2, n_ - 4099, n_ - 1};
  std::unique_ptr<DeviceMemory> memory_;
  std::unique_ptr<kernels::DeviceKernels> queue_;
  std::vector<DeviceBlock> blocks_;
};

TEST_F(QueueOfLargeTensors, AreAddedCopiedSummedAndChecked) {
  const std::span<float> x = Marked(), y = Zeros();
  const DeviceScope scope(queue_.get());
  {
    Together together;
    together.Next();
    kernels::Scale(x, 2.0f);
    CopyBytes(y.data(), x.data(), n_ * sizeof(float));
    kernels::AddInPlace(y, 0.5f, x);
    ZeroBytes(x.data(), (n_ - 4) * sizeof(float));
  }
  ExpectMarks(y, 3.0f);
  EXPECT_EQ(Get(x, places_[0]), 0);
  EXPECT_EQ(Get(x, n_ - 1), 2 * ValueAt(places_.size() - 1));
  const TensorView views[] = {{y.data(), DType::kF32, static_cast<int64_t>(n_)}};
  double sum = 0;
  queue_->SumsOfSquares(views, {&sum, 1});
  EXPECT_EQ(sum, 9 * (1 + 4 + 9 + 16 + 25));
  queue_->CheckFinite(views[0]);
  EXPECT_TRUE(queue_->TakeAllFinite());
  Put(y, n_ - 1, INFINITY);
  queue_->CheckFinite(views[0]);
  EXPECT_FALSE(queue_->TakeAllFinite());
}

TEST_F(QueueOfLargeTensors, TheirLargestAreFound) {
  const std::span<float> x = Marked();
  const size_t k = 3;
  const DeviceBlock room(memory_.get(), 64 * sizeof(kernels::IndexedValue));
  const DeviceScope scope(queue_.get());
  const auto list =
      kernels::TakeTopK({x}, k, {reinterpret_cast<kernels::IndexedValue*>(room.data()), 64});
  ASSERT_EQ(list.size(), k);
  for (size_t i = 0; i < k; ++i) {
    const size_t mark = places_.size() - k + i;
    kernels::IndexedValue entry = 0;
    queue_->CopyOut(&entry, list.data() + i, sizeof(entry));
    EXPECT_EQ(static_cast<uint32_t>(entry), places_[mark]);
    EXPECT_EQ(std::bit_cast<float>(static_cast<uint32_t>(entry >> 32)), ValueAt(mark));
    EXPECT_EQ(Get(x, places_[mark]), 0);
  }
  EXPECT_EQ(Get(x, places_[1]), ValueAt(1));
}

TEST_F(QueueOfLargeTensors, BodiesOfCodesAreDecodedWhereTheyWereEncoded) {
  kernels::QuantizeSpec spec;
  spec.bits = 8, spec.levels = 127;
  for (const int64_t block : {128, 0}) {  // 0: one scale for all
    spec.block = block;
    const std::span<float> x = Marked(), sum = Zeros();
    const DeviceBlock body(memory_.get(),
                           static_cast<size_t>(spec.BodyBytes(static_cast<int64_t>(n_))));
    const DeviceScope scope(queue_.get());
    kernels::Quantize({x}, spec, {}, body.data());
    kernels::DequantizeAdd(body.data(), spec, 1.0f, sum);
    kernels::AddInPlace(sum, 1.0f, x);  // what the codes have lost
    ExpectMarks(sum, 1.0f);
    EXPECT_TRUE(queue_->Wait().ok());
    blocks_.clear();
  }
}

}  // namespace
}  // namespace tw
