#include "core/nn/safetensors/safetensors.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

#include "core/base/bytes.h"
#include "core/base/rng.h"
#include "tests/core/data/temp_folder.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream out;
  out << file.rdbuf();
  return out.str();
}

std::string WithHeader(const std::string& json, const std::string& data) {
  std::string out(8, '\0');
  StoreLE<uint64_t>(reinterpret_cast<uint8_t*>(out.data()), json.size());
  return out + json + data;
}

std::string OpenError(const TempFolder& dir, const std::string& bytes) {
  const auto file = SafetensorsFile::Open(dir.Write("f.safetensors", bytes));
  EXPECT_FALSE(file.ok());
  if (file.ok()) return "";
  EXPECT_EQ(FaultOf(file.status()), Fault::kData);
  EXPECT_THAT(std::string(file.status().message()),
              AllOf(HasSubstr("f.safetensors: "), Not(HasSubstr("\n"))));
  return std::string(file.status().message());
}

NamedTensors AllKinds() {
  NamedTensors out;
  const at::Tensor x = at::arange(6).view({2, 3});
  for (auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt,
                     at::kShort, at::kChar, at::kByte, at::kBool}) {
    out.emplace_back(std::string("t.") + c10::toString(dtype), x.to(dtype));
  }
  out.emplace_back("scalar", at::tensor(1.5));
  out.emplace_back("empty", at::empty({0, 4}));
  return out;
}

TEST(Safetensors, RoundTripKeepsEveryDtypeShapeAndByte) {
  const TempFolder dir;
  const NamedTensors tensors = AllKinds();
  ASSERT_TRUE(WriteSafetensors(dir.Path("f"), tensors, {{"format", "pt"}}).ok());
  const auto file = SafetensorsFile::Open(dir.Path("f"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->entries().size(), tensors.size());
  EXPECT_EQ(file->metadata().at("format"), "pt");
  for (const auto& [name, tensor] : tensors) {
    const auto read = file->Read(name);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->scalar_type(), tensor.scalar_type()) << name;
    EXPECT_TRUE(read->equal(tensor)) << name;
  }
  EXPECT_FALSE(file->Read("absent").ok());
}

TEST(Safetensors, WritesTheBytesOfTheFormat) {
  const TempFolder dir;
  ASSERT_TRUE(
      WriteSafetensors(dir.Path("f"), {{"b", at::tensor({1.0f})}, {"a", at::tensor({2.0f})}}).ok());
  const std::string json =
      R"({"a":{"data_offsets":[0,4],"dtype":"F32","shape":[1]},"b":{"data_offsets":[4,8],"dtype":"F32","shape":[1]}})";
  std::string padded = json;
  padded.resize((json.size() + 7) / 8 * 8, ' ');
  EXPECT_EQ(ReadAll(dir.Path("f")), WithHeader(padded, std::string("\0\0\0\x40\0\0\x80\x3f", 8)));
}

TEST(Safetensors, TheSameTensorsGiveTheSameBytesInAnyOrder) {
  const TempFolder dir;
  NamedTensors tensors = AllKinds();
  ASSERT_TRUE(WriteSafetensors(dir.Path("a"), tensors).ok());
  std::reverse(tensors.begin(), tensors.end());
  ASSERT_TRUE(WriteSafetensors(dir.Path("b"), tensors).ok());
  EXPECT_EQ(ReadAll(dir.Path("a")), ReadAll(dir.Path("b")));
}

TEST(Safetensors, AlignsEveryTensorToItsElementSize) {
  const TempFolder dir;
  ASSERT_TRUE(WriteSafetensors(dir.Path("f"), AllKinds()).ok());
  const auto file = SafetensorsFile::Open(dir.Path("f"));
  ASSERT_TRUE(file.ok());
  for (const auto& [name, entry] : file->entries()) {
    EXPECT_EQ(entry.begin % static_cast<int64_t>(c10::elementSize(entry.dtype)), 0) << name;
  }
}

TEST(Safetensors, WritesNonContiguousTensorsRowByRow) {
  const TempFolder dir;
  const at::Tensor x = at::arange(6, at::kFloat).view({2, 3}).t();
  ASSERT_TRUE(WriteSafetensors(dir.Path("f"), {{"x", x}}).ok());
  const auto file = SafetensorsFile::Open(dir.Path("f"));
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE(file->Read("x")->equal(x));
}

TEST(Safetensors, AFailedWriteLeavesTheOldFileAndNoTemporaryOne) {
  const TempFolder dir;
  ASSERT_TRUE(WriteSafetensors(dir.Path("f"), {{"x", at::ones({2})}}).ok());
  const std::string before = ReadAll(dir.Path("f"));
  EXPECT_FALSE(WriteSafetensors(dir.Path("f"), {{"x", at::ones({2}, at::kComplexFloat)}}).ok());
  EXPECT_EQ(ReadAll(dir.Path("f")), before);
  EXPECT_EQ(FaultOf(WriteSafetensors(dir.Path("no/such/folder/f"), {{"x", at::ones({2})}})),
            Fault::kData);
  size_t files = 0;
  for ([[maybe_unused]] const auto& item : std::filesystem::directory_iterator(dir.Path("")))
    ++files;
  EXPECT_EQ(files, 1u);
}

TEST(Safetensors, RefusesDamagedFiles) {
  const TempFolder dir;
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  const std::string data(8, '\x01');
  ASSERT_TRUE(SafetensorsFile::Open(dir.Write("good", WithHeader(good, data))).ok());

  EXPECT_THAT(OpenError(dir, ""), HasSubstr("empty"));
  EXPECT_THAT(OpenError(dir, "abc"), HasSubstr("3 bytes are too few"));
  EXPECT_THAT(OpenError(dir, std::string(64, 'x')), HasSubstr("no safetensors file, or cut off"));
  EXPECT_THAT(OpenError(dir, WithHeader(good, "").substr(0, 30)), HasSubstr("cut off"));
  EXPECT_THAT(OpenError(dir, WithHeader("[1, 2]", "")), HasSubstr("no JSON object"));
  EXPECT_THAT(OpenError(dir, WithHeader("{\"a\":", "")), HasSubstr("no JSON object"));
  EXPECT_THAT(OpenError(dir, WithHeader(good, data.substr(1))),
              HasSubstr("only 7 are there: the file is cut off"));
  EXPECT_THAT(OpenError(dir, WithHeader(good, data + "xy")),
              HasSubstr("2 bytes behind the last tensor"));
  const auto entry = [](const std::string& text) { return "{\"a\":{" + text + "}}"; };
  EXPECT_THAT(
      OpenError(dir, WithHeader(entry(R"("dtype":"F99","shape":[2],"data_offsets":[0,8])"), data)),
      AllOf(HasSubstr("F99"), HasSubstr("BF16")));
  EXPECT_THAT(
      OpenError(dir, WithHeader(entry(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"), data)),
      AllOf(HasSubstr("takes 12 bytes"), HasSubstr("give 8")));
  EXPECT_THAT(
      OpenError(dir, WithHeader(entry(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), data)),
      HasSubstr("shape"));
  EXPECT_THAT(
      OpenError(
          dir,
          WithHeader(entry(R"("dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8])"),
                     data)),
      HasSubstr("too many elements"));
  EXPECT_THAT(
      OpenError(dir, WithHeader(entry(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), data)),
      HasSubstr("give -8"));
  for (const char* text :
       {R"("dtype":"F32","shape":[2])", R"("dtype":1,"shape":[2],"data_offsets":[0,8])",
        R"("dtype":"F32","shape":2,"data_offsets":[0,8])",
        R"("dtype":"F32","shape":[2],"data_offsets":[0])",
        R"("dtype":"F32","shape":[2],"data_offsets":[0.5,8])",
        R"("dtype":"F32","shape":[2],"data_offsets":[-8,0])"}) {
    EXPECT_THAT(OpenError(dir, WithHeader(entry(text), data)), HasSubstr("malformed"));
  }
  EXPECT_THAT(OpenError(dir, WithHeader(R"({"a":7})", "")), HasSubstr("malformed"));
  EXPECT_THAT(OpenError(dir, WithHeader(R"({"__metadata__":{"a":1}})", "")),
              HasSubstr("__metadata__"));
}

TEST(Safetensors, RefusesOverlapsGapsAndDoubleNames) {
  const TempFolder dir;
  const auto two = [](const char* b) {
    return std::string(
               R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":)") +
           b + "}}";
  };
  EXPECT_THAT(OpenError(dir, WithHeader(two("[2,6]"), "12345678")), HasSubstr("overlap"));
  EXPECT_THAT(OpenError(dir, WithHeader(two("[5,9]"), "123456789")), HasSubstr("gap"));
  const std::string twice =
      R"({"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}})";
  EXPECT_THAT(OpenError(dir, WithHeader(twice, "")), HasSubstr("listed twice"));
}

TEST(Safetensors, SurvivesFlippedAndCutBytes) {
  const TempFolder dir;
  ASSERT_TRUE(WriteSafetensors(dir.Path("f"), AllKinds()).ok());
  const std::string good = ReadAll(dir.Path("f"));
  const RngStream rng = RngStream::Of(1, RngPurpose::kTest, 0, 0, 0);
  for (uint64_t i = 0; i < 400; ++i) {
    std::string bad = good;
    bad[rng.Below(2 * i, bad.size())] ^= static_cast<char>(1 + rng.Below(2 * i + 1, 255));
    if (i % 4 == 0) bad.resize(rng.Below(3 * i, bad.size()));
    const auto file = SafetensorsFile::Open(dir.Write("bad", bad));
    if (!file.ok()) continue;
    for (const auto& [name, entry] : file->entries()) EXPECT_TRUE(file->Read(name).ok());
  }
}

TEST(LoadSafetensors, CopiesInPlaceAndConvertsFloats) {
  const TempFolder dir;
  ASSERT_TRUE(
      WriteSafetensors(dir.Path("f"), {{"w", at::tensor({1.0, 2.5}).to(at::kBFloat16)}}).ok());
  const at::Tensor w = at::zeros({2}).requires_grad_();
  const void* address = w.data_ptr();
  ASSERT_TRUE(LoadSafetensors(dir.Path("f"), {{"w", w}}).ok());
  EXPECT_EQ(w.data_ptr(), address);
  EXPECT_EQ(w.scalar_type(), at::kFloat);
  EXPECT_TRUE(w.equal(at::tensor({1.0f, 2.5f})));
}

TEST(LoadSafetensors, TakesATiedNameBesidesOrInsteadOfItsTarget) {
  const TempFolder dir;
  const std::map<std::string, std::string> tied = {{"head.weight", "tok.weight"}};
  const at::Tensor one = at::ones({2}), two = at::full({2}, 2.0f);
  const at::Tensor w = at::zeros({2});
  ASSERT_TRUE(WriteSafetensors(dir.Path("both"), {{"tok.weight", one}, {"head.weight", one}}).ok());
  EXPECT_FALSE(LoadSafetensors(dir.Path("both"), {{"tok.weight", w}}).ok());
  ASSERT_TRUE(LoadSafetensors(dir.Path("both"), {{"tok.weight", w}}, tied).ok());
  EXPECT_TRUE(w.equal(one));
  ASSERT_TRUE(WriteSafetensors(dir.Path("head"), {{"head.weight", two}}).ok());
  ASSERT_TRUE(LoadSafetensors(dir.Path("head"), {{"tok.weight", w}}, tied).ok());
  EXPECT_TRUE(w.equal(two));
}

TEST(LoadSafetensors, ListsWhatDoesNotFitAndCopiesNothing) {
  const TempFolder dir;
  ASSERT_TRUE(WriteSafetensors(dir.Path("f"), {{"a", at::ones({2})},
                                               {"b", at::ones({2, 3})},
                                               {"x.rotary_emb.inv_freq", at::ones({2})},
                                               {"e1", at::ones({1})},
                                               {"e2", at::ones({1})},
                                               {"e3", at::ones({1})},
                                               {"e4", at::ones({1})}})
                  .ok());
  const at::Tensor a = at::zeros({2});
  const Status status =
      LoadSafetensors(dir.Path("f"), {{"a", a}, {"b", at::zeros({3, 2})}, {"c", at::zeros({1})}});
  EXPECT_EQ(FaultOf(status), Fault::kData);
  EXPECT_THAT(
      std::string(status.message()),
      AllOf(HasSubstr("missing: c"), HasSubstr("not in the model: e1, e2, e3 and 1 more"),
            HasSubstr("b is [2, 3] in the file, [3, 2] in the model"), Not(HasSubstr("inv_freq"))));
  EXPECT_TRUE(a.equal(at::zeros({2})));
}

}  // namespace
}  // namespace tw
