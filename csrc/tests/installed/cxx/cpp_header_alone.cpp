// mipruner.hpp brings along whatever it needs: nothing else is included here.
#include "mipruner/mipruner.hpp"

mipruner::Context new_context() { return mipruner::Context(); }
