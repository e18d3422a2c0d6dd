#pragma once
// The bytes of a TensorBoard event file, written by hand: three messages of a few fields need no
// protobuf. Pure functions.
//
// File: records { uint64 length, uint32 masked crc32c(length), bytes, uint32 masked crc32c(bytes)
// }, little-endian (TFRecord). Each record is an Event message:
//   Event        1 wall_time double, 2 step int64, 3 file_version string, 5 summary, 7 session_log
//   Summary      1 repeated Value        Value  1 tag string, 2 simple_value float
//   SessionLog   1 status enum (START = 1): readers drop what older files say from this step on

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace tw {

// crc32c (Castagnoli), as in RFC 3720, unmasked.
uint32_t Crc32c(std::string_view bytes);
std::string FramedRecord(std::string_view bytes);

std::string VersionEvent(double wall_time_s);
std::string SessionStartEvent(double wall_time_s, int64_t step);
std::string ScalarsEvent(double wall_time_s, int64_t step,
                         const std::vector<std::pair<std::string, float>>& scalars);

}  // namespace tw
