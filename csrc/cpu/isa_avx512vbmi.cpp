// The kernels as compiled for this instruction set; CMakeLists.txt sets the flags.
#define PYXAI_ISA avx512vbmi
#include "isa_impl.h"
