// The fields of a struct of arguments, for the binding: a struct that lists its own here is all
// that Python, the binding and the kernels need to agree on.
#pragma once

#include <tuple>

// In the order in which Python passes them. A field may be such a struct itself.
#define PYXAI_FIELDS(...)                                                                          \
    static constexpr const char* field_names = #__VA_ARGS__;                                       \
    auto fields() {                                                                                \
        return std::tie(__VA_ARGS__);                                                              \
    }
