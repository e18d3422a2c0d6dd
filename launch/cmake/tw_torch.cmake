# Finds LibTorch and defines the imported target tw_torch (libtorch_cpu, libc10).
# Looked for in this order: -DTORCH_DIR / $TORCH_DIR, .deps/torch (launch/setup puts it there), python3's torch.
# TorchConfig.cmake is not used: it wants the whole CUDA set even for a CPU program.
set(TORCH_DIR "$ENV{TORCH_DIR}" CACHE PATH "Folder with LibTorch's include/ and lib/")
if(NOT EXISTS "${TORCH_DIR}/lib/libtorch_cpu.so" AND EXISTS "${CMAKE_SOURCE_DIR}/.deps/torch/lib/libtorch_cpu.so")
  set(TORCH_DIR "${CMAKE_SOURCE_DIR}/.deps/torch" CACHE PATH "" FORCE)
endif()
if(NOT EXISTS "${TORCH_DIR}/lib/libtorch_cpu.so")
  execute_process(
    COMMAND python3 -c "import os, torch; print(os.path.dirname(torch.__file__))"
    OUTPUT_VARIABLE tw_python_torch OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(EXISTS "${tw_python_torch}/lib/libtorch_cpu.so")
    set(TORCH_DIR "${tw_python_torch}" CACHE PATH "" FORCE)
  endif()
endif()
if(NOT EXISTS "${TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "LibTorch not found. Run launch/setup, or set TORCH_DIR to a folder with lib/libtorch_cpu.so.")
endif()
message(STATUS "LibTorch: ${TORCH_DIR}")

add_library(tw_torch INTERFACE)
# Without it every header of an operator brings those of all of them.
target_compile_definitions(tw_torch INTERFACE AT_PER_OPERATOR_HEADERS)
target_include_directories(tw_torch SYSTEM INTERFACE
  "${TORCH_DIR}/include" "${TORCH_DIR}/include/torch/csrc/api/include")
target_link_libraries(tw_torch INTERFACE "${TORCH_DIR}/lib/libtorch_cpu.so" "${TORCH_DIR}/lib/libc10.so")
# libtorch_cpu.so itself needs libcudart and libcupti; its own RPATH finds them in ../../nvidia.
target_link_options(tw_torch INTERFACE "-Wl,--allow-shlib-undefined" "-Wl,-rpath,${TORCH_DIR}/lib")
