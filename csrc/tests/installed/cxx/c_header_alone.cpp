// mipruner.h brings along whatever it needs: nothing else is included here.
#include "mipruner/mipruner.h"

int32_t abi_of_the_c_header() { return MIPRUNER_ABI_VERSION; }
