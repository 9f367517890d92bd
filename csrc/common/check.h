// Guards against what would corrupt memory. Friendly messages come from Python, which checks first.
#pragma once

#include <stdexcept>
#include <string>

#define PYXAI_CHECK(condition, message)                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            throw std::invalid_argument(std::string("pyxai: ") + (message) +                       \
                                        " (failed check: " #condition ")");                        \
        }                                                                                          \
    } while (false)
