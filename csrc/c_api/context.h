#pragma once

#include "c_api/failure.h"
#include "c_api/memory.h"
#include "core/executor.h"

struct mipruner_context {
  mipruner_context_params params;
  bool uses_cuda = false;
  mipruner::c_api::HostMemory host;
  mipruner::c_api::DeviceMemory device;
  char last_error[sizeof(mipruner::Status::message)] = {0};
};
