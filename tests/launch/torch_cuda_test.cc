#include "launch/torch_cuda.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/base/status.h"
#include "tests/core/data/temp_folder.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// Where there is a GPU after all this is no test.
TEST(TorchCuda, WithoutAGpuOneLineSaysWhy) {
  const Status status = LoadTorchCuda();
  if (status.ok()) GTEST_SKIP() << "this machine has a GPU";
  EXPECT_EQ(FaultOf(status), Fault::kConfig);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("LibTorch cannot use a GPU here"), HasSubstr("libtorch_cuda.so"),
                    Not(HasSubstr("\n"))));
}

TEST(TorchCuda, NamesTheLibraryThatIsNotThere) {
  const Status status = LoadTorchCuda({.library = "/nowhere/libtorch_cuda.so"});
  EXPECT_THAT(std::string(status.message()), HasSubstr("there is no /nowhere/libtorch_cuda.so"));
}

TEST(TorchCuda, SaysWhatTheLoaderSaid) {
  const TempFolder dir;
  const std::string path = dir.Write("libtorch_cuda.so", "no library");
  const Status status = LoadTorchCuda({.library = path});
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr(path + " does not load: "), HasSubstr("file too short")));
}

}  // namespace
}  // namespace tw
