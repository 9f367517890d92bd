// The kernels as compiled for this instruction set; CMakeLists.txt sets the flags.
#define PYXAI_ISA baseline
#include "isa_impl.h"
