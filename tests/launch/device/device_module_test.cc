// Finding a driver and loading the module, with libraries made for this: what is said when
// something is missing or of another build, and what is offered when nothing is.

#include "launch/device_module.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "launch/list_kernels.h"

namespace tw {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

std::string Fake(const std::string& name) { return std::string(TW_FAKES) + "/lib" + name + ".so"; }

TEST(DeviceModule, WithoutADriverNothingIsLoaded) {
  const auto found = LoadDeviceModule({"libno_such_driver.so.1", Fake("fake_module")});
  EXPECT_EQ(found.reason, "no driver: libno_such_driver.so.1 not found");
  EXPECT_EQ(found.module, nullptr);
  EXPECT_THAT(found.devices, IsEmpty());
}

TEST(DeviceModule, ALibraryThatIsNoDriverIsNone) {
  const auto found = LoadDeviceModule({Fake("fake_module"), Fake("fake_module")});
  EXPECT_THAT(found.reason, AllOf(StartsWith("no driver: "), HasSubstr("is not CUDA's")));
}

TEST(DeviceModule, ADriverWithoutDevicesLoadsNothing) {
  for (const char* driver : {"fake_driver_0", "fake_driver_none"}) {
    const auto found = LoadDeviceModule({Fake(driver), Fake("fake_module")});
    EXPECT_EQ(found.reason, "driver there, no device") << driver;
    EXPECT_EQ(found.module, nullptr);
  }
}

TEST(DeviceModule, ADriverThatDoesNotStartSaysWithWhichError) {
  const auto found = LoadDeviceModule({Fake("fake_driver_803"), Fake("fake_module")});
  EXPECT_EQ(found.reason, "driver there, but it does not start: CUDA error 803");
}

TEST(DeviceModule, AMissingModuleSaysHowToGetOne) {
  const auto found = LoadDeviceModule({Fake("fake_driver_3"), Fake("not_there")});
  EXPECT_EQ(found.reason, "module not built: configure with nvcc, build tightwire_cuda (" +
                              Fake("not_there") + ")");
  EXPECT_EQ(found.devices.size(), 3u);
}

TEST(DeviceModule, AModuleOfAnotherBuildIsRefused) {
  const auto abi = LoadDeviceModule({Fake("fake_driver_3"), Fake("fake_module_abi")});
  EXPECT_EQ(abi.module, nullptr);
  EXPECT_THAT(abi.reason, HasSubstr("module of another build: interface 4711, wanted " +
                                    std::to_string(kCudaModuleAbi) + " ("));
  const auto version = LoadDeviceModule({Fake("fake_driver_3"), Fake("fake_module_version")});
  EXPECT_EQ(version.module, nullptr);
  EXPECT_THAT(version.reason, HasSubstr("module of another build: 0.0.1 at long ago, wanted "));
}

TEST(DeviceModule, WhatIsNoModuleIsRefused) {
  const auto entry = LoadDeviceModule({Fake("fake_driver_3"), Fake("fake_driver_0")});
  EXPECT_THAT(entry.reason, HasSubstr("module is none of tightwire's: "));
  const auto file = LoadDeviceModule({Fake("fake_driver_3"), TW_SOURCE_DIR "/README.md"});
  EXPECT_THAT(file.reason, HasSubstr("module does not load: "));
}

TEST(DeviceModule, WithADeviceAndItsModuleAllIsThere) {
  const auto found = LoadDeviceModule({Fake("fake_driver_3"), Fake("fake_module")});
  EXPECT_EQ(found.reason, "");
  ASSERT_NE(found.module, nullptr);
  EXPECT_THAT(found.devices, ElementsAre("Fake GPU 0", "Fake GPU 0", "Fake GPU 1"));
  EXPECT_EQ(std::string(found.module->kernels), "elementwise only_cuda");
}

TEST(DeviceModule, EachDeviceHasAnIdAndACapability) {
  const auto found = LoadDeviceModule({Fake("fake_driver_ids"), Fake("fake_module")});
  EXPECT_THAT(found.ids, ElementsAre("00112233-4455-6677-8899-aabbccddeef0",
                                     "00112233-4455-6677-8899-aabbccddeef1",
                                     "00112233-4455-6677-8899-aabbccddeef2"));
  ASSERT_EQ(found.capabilities.size(), 3u);
  EXPECT_EQ(ToString(found.capabilities[0]), "9.0");
  EXPECT_THAT(found.usable(), ElementsAre(0, 2));
  EXPECT_FALSE(found.usable(1));
  EXPECT_NE(found.module, nullptr);
  const auto older = LoadDeviceModule({Fake("fake_driver_older_id"), Fake("fake_module")});
  EXPECT_THAT(older.ids, ElementsAre("00112233-4455-6677-8899-aabbccddeef0",
                                     "00112233-4455-6677-8899-aabbccddeef1"));
  ASSERT_EQ(older.capabilities.size(), 2u);
  EXPECT_EQ(ToString(older.capabilities[1]), "12.1");
}

TEST(DeviceModule, WhatTheDriverDoesNotSayOfAllIsLeftOut) {
  for (const char* driver : {"fake_driver_3", "fake_driver_refuses"}) {
    const auto found = LoadDeviceModule({Fake(driver), Fake("fake_module")});
    EXPECT_THAT(found.ids, IsEmpty()) << driver;
    EXPECT_THAT(found.capabilities, IsEmpty()) << driver;
    EXPECT_THAT(found.usable(), ElementsAre(0, 1, 2)) << driver;
    EXPECT_NE(found.module, nullptr) << driver;
  }
}

TEST(DeviceModule, DevicesThatAreTooOldAreNone) {
  const auto one = LoadDeviceModule({Fake("fake_driver_75"), Fake("fake_module")});
  EXPECT_EQ(one.reason, "compute capability 8.0 is needed: GPU 0 (Fake GPU 0) has 7.5");
  EXPECT_EQ(one.module, nullptr);
  EXPECT_EQ(one.devices.size(), 1u);
  EXPECT_THAT(one.usable(), IsEmpty());
  const auto more = LoadDeviceModule({Fake("fake_driver_old"), Fake("fake_module")});
  EXPECT_EQ(more.reason,
            "compute capability 8.0 is needed: GPU 0 (Fake GPU 0) has 7.5, GPU 1 (Fake GPU 0) has "
            "7.0, GPU 2 (Fake GPU 1) has 3.7");
}

TEST(DeviceModule, TheModuleLiesBesideTheLibrary) {
  EXPECT_THAT(LoadDeviceModule({.driver = "libnone.so"}).path,
              AllOf(StartsWith("/"), HasSubstr("/libtightwire_cuda.so")));
}

std::string Listed(const DeviceModule& devices, bool json) {
  std::ostringstream out;
  ListKernels(devices, json, out);
  return out.str();
}

TEST(ListKernels, SaysWhyNothingRunsOnAGpu) {
  const DeviceModule none{.reason = "driver there, no device"};
  const std::string text = Listed(none, false);
  EXPECT_THAT(text, AllOf(HasSubstr("\n  cuda            not here: driver there, no device\n"),
                          HasSubstr(" now; offered: "), HasSubstr("\n  topk            cpu\n"),
                          Not(HasSubstr("cpu, cuda"))));
  EXPECT_THAT(Listed(none, true),
              HasSubstr(R"({"kind":"kernel","name":"cuda","runs":false,"devices":[],)"
                        R"("reason":"driver there, no device",)"));
}

TEST(ListKernels, SaysWhatRunsOnWhichGpu) {
  const auto found = LoadDeviceModule({Fake("fake_driver_3"), Fake("fake_module")});
  EXPECT_THAT(
      Listed(found, false),
      AllOf(HasSubstr("  cuda            GPU 0, 1: Fake GPU 0, GPU 2: Fake GPU 1; nvcc 1.2 for 80; "
                      "NCCL 9.9.9\n"),
            HasSubstr("\n  elementwise     cpu, cuda\n"), HasSubstr("\n  only_cuda       cuda\n"),
            HasSubstr("\n  topk            cpu\n")));
  EXPECT_THAT(Listed(found, true),
              HasSubstr(R"({"kind":"kernel","name":"elementwise","where":["cpu","cuda"],)"));
}

TEST(ListKernels, ShowsNumberNameAndCapability) {
  const auto found = LoadDeviceModule({Fake("fake_driver_ids"), Fake("fake_module")});
  EXPECT_THAT(Listed(found, false),
              HasSubstr("  cuda            GPU 0: Fake GPU 0 (9.0), GPU 1: Fake GPU 0 (7.5, not "
                        "used), GPU 2: Fake GPU 1 (8.0); nvcc 1.2 for 80; NCCL 9.9.9\n"));
  EXPECT_THAT(Listed(found, true),
              HasSubstr(R"({"number":1,"name":"Fake GPU 0","capability":"7.5",)"
                        R"("id":"00112233-4455-6677-8899-aabbccddeef1","usable":false})"));
  const auto old = LoadDeviceModule({Fake("fake_driver_75"), Fake("fake_module")});
  EXPECT_THAT(Listed(old, false),
              HasSubstr("  cuda            not here: compute capability 8.0 is needed: GPU 0 (Fake "
                        "GPU 0) has 7.5\n"));
  const auto unbuilt = LoadDeviceModule({Fake("fake_driver_older_id"), Fake("not_there")});
  EXPECT_THAT(Listed(unbuilt, false),
              HasSubstr("); GPU 0: Fake GPU 0 (10.0), GPU 1: Fake GPU 0 (12.1)\n"));
}

}  // namespace
}  // namespace tw
