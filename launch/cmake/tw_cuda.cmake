# Decides whether CUDA code is built, and says so in one line. Nothing here needs a GPU or a driver.
#   TW_CUDA  AUTO (on where nvcc is found) | ON (an error where it is not) | OFF; afterwards TRUE or FALSE.
#   CMAKE_CUDA_ARCHITECTURES  machine code for sm_80 and sm_90, PTX of sm_90 for what comes later.
# Defines, where the headers are found (sanitizer builds have them too: the NCCL communicator is tested without a GPU):
#   tw_nccl_headers   interface target: nccl.h and the CUDA runtime's headers
#   TW_NCCL_LIBRARY   libnccl.so.2, only for what really runs on GPUs
#   TW_NCCL_VERSION   of the headers
set(TW_CUDA AUTO CACHE STRING "CUDA module: AUTO | ON | OFF")
set_property(CACHE TW_CUDA PROPERTY STRINGS AUTO ON OFF)
set(CMAKE_CUDA_ARCHITECTURES "80-real;90" CACHE STRING "GPU architectures")

# Optimized code by default and no contraction into FMA behind our back, as on the CPU; warnings of the host code as in C++.
function(tw_cuda_flags)
  set(host -Wall,-Wextra,-Wno-unused-parameter,-Wno-missing-field-initializers)
  add_compile_options($<$<COMPILE_LANGUAGE:CUDA>:-Xcompiler=${host}> $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false>)
  if(TW_WERROR)
    add_compile_options("$<$<COMPILE_LANGUAGE:CUDA>:SHELL:-Werror all-warnings>")
  endif()
endfunction()

macro(tw_cuda_enable)
  enable_language(CUDA)
  # CMake 3.25 knows no nvcc of this age to speak C++20: it is told what to say.
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA_STANDARD 20)  # behind enable_language: CMake does not know of it before
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_EXTENSIONS OFF)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared)
  # CMake 3.25 marks a library as superseded that CUDA 13 no longer has, and fails; not for who asks for less than 3.25.
  set(tw_minimum ${CMAKE_MINIMUM_REQUIRED_VERSION})
  set(CMAKE_MINIMUM_REQUIRED_VERSION 3.24)
  find_package(CUDAToolkit REQUIRED)
  set(CMAKE_MINIMUM_REQUIRED_VERSION ${tw_minimum})
  if(TW_CCACHE)
    set(CMAKE_CUDA_COMPILER_LAUNCHER
        ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1 ${TW_CCACHE})
  endif()
endmacro()

set(tw_cuda_wish "${TW_CUDA}")
if(NOT tw_cuda_wish MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "TW_CUDA is '${tw_cuda_wish}'; AUTO, ON or OFF is allowed")
endif()
find_program(TW_NVCC nvcc HINTS ENV CUDACXX ENV CUDA_HOME ENV CUDA_PATH PATHS /usr/local/cuda/bin PATH_SUFFIXES bin)
set(TW_CUDA FALSE)
if(tw_cuda_wish STREQUAL "OFF")
  set(tw_cuda_why "off: TW_CUDA=OFF")
elseif(TW_FUZZ OR TW_SANITIZE)
  set(tw_cuda_why "off: not in sanitizer and fuzz builds")
elseif(NOT TW_NVCC)
  set(tw_cuda_why "off: no nvcc in PATH or /usr/local/cuda/bin (TW_CUDA=${tw_cuda_wish})")
else()
  include(CheckLanguage)
  set(CMAKE_CUDA_COMPILER "${TW_NVCC}")
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    tw_cuda_enable()
    tw_cuda_flags()
    set(TW_CUDA TRUE)
    set(tw_cuda_why "on: ${TW_NVCC} ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${CMAKE_CUDA_ARCHITECTURES}")
  else()
    set(tw_cuda_why "off: ${TW_NVCC} cannot compile with this C++ compiler")
  endif()
endif()
if(tw_cuda_wish STREQUAL "ON" AND NOT TW_CUDA)
  message(FATAL_ERROR "CUDA ${tw_cuda_why}")
endif()

# NCCL and the runtime's headers: from the toolkit, the system, or the wheels that lie beside LibTorch.
if(NOT TW_FUZZ AND NOT tw_cuda_wish STREQUAL "OFF")
  get_filename_component(tw_cuda_folder "${TW_NVCC}" DIRECTORY)
  get_filename_component(tw_wheels "${TORCH_DIR}/../nvidia" ABSOLUTE)
  find_path(TW_CUDA_INCLUDE cuda_runtime_api.h HINTS ${CUDAToolkit_INCLUDE_DIRS} "${tw_cuda_folder}/../include"
    PATHS /usr/local/cuda/include "${tw_wheels}/cu13/include")
  find_path(TW_NCCL_INCLUDE nccl.h HINTS ENV NCCL_HOME "${tw_cuda_folder}/../include" "${tw_wheels}/nccl/include"
    PATH_SUFFIXES include)
  find_library(TW_NCCL_LIBRARY NAMES nccl libnccl.so.2 HINTS ENV NCCL_HOME "${tw_cuda_folder}/../lib"
    "${tw_cuda_folder}/../lib64" "${tw_wheels}/nccl/lib" PATH_SUFFIXES lib)
  if(TW_CUDA_INCLUDE AND TW_NCCL_INCLUDE)
    add_library(tw_nccl_headers INTERFACE)
    target_include_directories(tw_nccl_headers SYSTEM INTERFACE "${TW_NCCL_INCLUDE}" "${TW_CUDA_INCLUDE}")
    file(STRINGS "${TW_NCCL_INCLUDE}/nccl.h" lines REGEX "^#define NCCL_(MAJOR|MINOR|PATCH) ")
    string(REGEX REPLACE "[^;0-9]+" "" TW_NCCL_VERSION "${lines}")
    string(REPLACE ";" "." TW_NCCL_VERSION "${TW_NCCL_VERSION}")
  endif()
endif()
if(TW_CUDA AND NOT (TARGET tw_nccl_headers AND TW_NCCL_LIBRARY))
  if(NOT TW_NCCL_INCLUDE)
    set(tw_nccl_missing "nccl.h")
  elseif(NOT TW_NCCL_LIBRARY)
    set(tw_nccl_missing "libnccl.so.2")
  else()
    set(tw_nccl_missing "cuda_runtime_api.h")
  endif()
  string(APPEND tw_cuda_why "; without NCCL: ${tw_nccl_missing} not found (package libnccl-dev, or NCCL_HOME)")
elseif(TW_CUDA)
  string(APPEND tw_cuda_why ", NCCL in ${TW_NCCL_LIBRARY}")
endif()
message(STATUS "CUDA ${tw_cuda_why}")
