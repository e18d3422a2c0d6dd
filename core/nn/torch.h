#pragma once
// What models, the engine and their tests need of LibTorch: tensors with autograd, modules, factory
// functions. A third of what torch/torch.h would have every file compile again.
#include <torch/autograd.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/types.h>
#include <torch/utils.h>
