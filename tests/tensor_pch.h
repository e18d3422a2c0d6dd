#pragma once
// Precompiled header of the tests that touch a tensor but no model.
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>

#include "tests/pch.h"
