#pragma once
// What device_queue notes of a call, and what becomes one launch: segments of one kernel that share
// the arguments which a launch has but once.
//
// A kernel is described by an Op:
//   Segment, Parameters               what a call has of its own, what a launch has but once
//   kSkipsEmpty                       whether a segment without elements is nothing at all
//   kDeviceParameters                 whether it is a step, which reads its coefficients from
//   device
//                                     memory, where their grad_scale may be clipped
//   kTable                            whether it takes a table; else Launch goes over the segments
//   Place(segments, parameters)       numbers the tiles; returns how many
//   Scratch(segments, tiles, parameters)  bytes of device memory that Launch needs
//   UseScratch(segments, scratch)     where segments point into it
//   Launch(LaunchOf<Segment, Parameters>)

#include <cstring>
#include <span>
#include <tuple>
#include <type_traits>
#include <vector>

#include "core/kernels/clip_device.h"
#include "core/kernels/device.h"

namespace tw::kernels {

template <class Segment, class Parameters>
struct LaunchOf {
  device::Table<Segment> table;
  std::span<const Segment> segments;  // the same, where the host can read them
  const Parameters& parameters;
  const Parameters* device_parameters;
  uint8_t* scratch;
  device::Stream stream;
};

// What most kernels have in common.
template <class S, class P>
struct OpBase {
  using Segment = S;
  using Parameters = P;
  static constexpr bool kSkipsEmpty = true, kDeviceParameters = false, kTable = true;
  static int64_t Place(std::span<S> segments, const P&) { return device::PlaceTiles(segments); }
  static size_t Scratch(std::span<const S>, int64_t, const P&) { return 0; }
  static void UseScratch(std::span<S>, uint8_t*) {}
};

// void kKernel(Table, parameters..., Stream)
template <auto kKernel, class S, class... P>
struct KernelWith : OpBase<S, std::tuple<P...>> {
  static void Launch(const LaunchOf<S, std::tuple<P...>>& of) {
    std::apply([&](const P&... p) { kKernel(of.table, p..., of.stream); }, of.parameters);
  }
};
template <auto kKernel>
struct Kernel;
template <class S, void (*kKernel)(device::Table<S>, device::Stream)>
struct Kernel<kKernel> : KernelWith<kKernel, S> {};
template <class S, class A, void (*kKernel)(device::Table<S>, A, device::Stream)>
struct Kernel<kKernel> : KernelWith<kKernel, S, std::remove_cvref_t<A>> {};
template <class S, class A, class B, void (*kKernel)(device::Table<S>, A, B, device::Stream)>
struct Kernel<kKernel> : KernelWith<kKernel, S, std::remove_cvref_t<A>, std::remove_cvref_t<B>> {};
template <class S, class A, class B, class C,
          void (*kKernel)(device::Table<S>, A, B, C, device::Stream)>
struct Kernel<kKernel> : KernelWith<kKernel, S, std::remove_cvref_t<A>, std::remove_cvref_t<B>,
                                    std::remove_cvref_t<C>> {};

// void kKernel(Table, const Coefficients* in device memory, Stream)
template <auto kKernel>
struct StepKernel;
template <class S, class C, void (*kKernel)(device::Table<S>, const C*, device::Stream)>
struct StepKernel<kKernel> : OpBase<S, C> {
  static constexpr bool kDeviceParameters = true;
  static void Launch(const LaunchOf<S, C>& of) {
    kKernel(of.table, of.device_parameters, of.stream);
  }
};

// A kernel without a table: a launch for each call. Call is what it is called with.
struct None {
  bool operator==(const None&) const = default;
};
template <class Call>
struct EachCall : OpBase<Call, None> {
  static constexpr bool kSkipsEmpty = false, kTable = false;
  static int64_t Place(std::span<Call>, const None&) { return 0; }
  static void Launch(const LaunchOf<Call, None>& of) {
    for (const Call& call : of.segments) call(of.stream);
  }
};

class Batch {
 public:
  explicit Batch(int op) : op_(op) {}
  virtual ~Batch() = default;
  int op() const { return op_; }

  // Then the two sizes are known, and Stage may be called.
  virtual void Prepare() = 0;
  size_t table_bytes() const { return table_bytes_; }
  size_t scratch_bytes() const { return scratch_bytes_; }
  // Writes the table to `host`, of which the device will have a copy at `device`.
  virtual void Stage(uint8_t* host, uint8_t* device, uint8_t* scratch) = 0;
  // `clip` is for kernels of steps.
  virtual void Launch(const device::StepClip& clip, device::Stream stream) const = 0;
  virtual void Clear() = 0;

 protected:
  size_t table_bytes_ = 0, scratch_bytes_ = 0;

 private:
  const int op_;
};

int NextOp();
template <class Op>
int OpNumber() {
  static const int number = NextOp();
  return number;
}

inline constexpr size_t kTableAlignment = 16;
constexpr size_t Aligned(size_t bytes) {
  return (bytes + kTableAlignment - 1) / kTableAlignment * kTableAlignment;
}

template <class Op>
class BatchOf final : public Batch {
 public:
  using Segment = typename Op::Segment;
  using Parameters = typename Op::Parameters;
  static_assert(std::is_trivially_copyable_v<Segment>);

  BatchOf() : Batch(OpNumber<Op>()) {}
  void Start(const Parameters& parameters) { parameters_ = parameters; }
  bool Has(const Parameters& parameters) const { return parameters_ == parameters; }
  void Add(const Segment& segment) {
    segments_.push_back(segment);
#if __has_builtin(__builtin_clear_padding)
    // No bytes of the host's stack in tables.
    __builtin_clear_padding(&segments_.back());
#endif
  }

  void Prepare() override {
    tiles_ = Op::Place(std::span<Segment>(segments_), parameters_);
    scratch_bytes_ = Op::Scratch(std::span<const Segment>(segments_), tiles_, parameters_);
    table_bytes_ = Op::kTable ? Aligned(segments_.size() * sizeof(Segment)) : 0;
    if constexpr (Op::kDeviceParameters) table_bytes_ += Aligned(sizeof(Parameters));
  }
  void Stage(uint8_t* host, uint8_t* device, uint8_t* scratch) override {
    scratch_ = scratch;
    Op::UseScratch(std::span<Segment>(segments_), scratch);
    device_ = device;
    if constexpr (!Op::kTable) return;
    const size_t bytes = segments_.size() * sizeof(Segment);
    std::memcpy(host, segments_.data(), bytes);
    if constexpr (Op::kDeviceParameters) {
      std::memcpy(host + Aligned(bytes), &parameters_, sizeof(Parameters));
    }
  }
  void Launch([[maybe_unused]] const device::StepClip& clip, device::Stream stream) const override {
    const device::Table<Segment> table{reinterpret_cast<const Segment*>(device_),
                                       static_cast<int32_t>(segments_.size()), tiles_};
    auto* behind =
        reinterpret_cast<Parameters*>(device_ + Aligned(segments_.size() * sizeof(Segment)));
    if constexpr (Op::kDeviceParameters) device::ClipScale(clip, &behind->grad_scale, stream);
    Op::Launch(
        LaunchOf<Segment, Parameters>{table, segments_, parameters_, behind, scratch_, stream});
  }
  void Clear() override { segments_.clear(); }

 private:
  std::vector<Segment> segments_;
  Parameters parameters_{};
  int64_t tiles_ = 0;
  uint8_t* device_ = nullptr;
  uint8_t* scratch_ = nullptr;
};

}  // namespace tw::kernels
