#pragma once
// What models, the engine and their tests need of LibTorch: tensors with autograd, modules, factory
// functions. It costs an empty file a third less than torch/torch.h does.
#include <torch/autograd.h>
#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/types.h>
#include <torch/utils.h>
