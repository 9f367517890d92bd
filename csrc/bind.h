// How a kernel becomes a Python function: one template for all of them, for both binding files.
//
// A kernel takes a struct whose PYXAI_FIELDS say what Python passes, one by one: addresses where
// they point, numbers where they are dtypes. Scratch memory follows, with its size, then where to
// run. The function checks all of that and returns 0; or, before it has done anything, how many
// bytes of scratch memory it needs, so that the common call, whose memory suffices, is one
// crossing.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include <pybind11/pybind11.h>

#include "common/check.h"
#include "common/dtype.h"

namespace pyxai {

namespace py = pybind11;

using Address = std::uintptr_t;

constexpr Address kAlignment = 64; // of scratch memory

template <class T, class = void> constexpr bool has_fields = false;
template <class T> constexpr bool has_fields<T, std::void_t<decltype(T::field_names)>> = true;

// References to what lies in a struct of arguments, and in those inside it.
template <class T> auto leaves(T& value) {
    if constexpr (has_fields<T>) {
        return std::apply([](auto&... fields) { return std::tuple_cat(leaves(fields)...); },
                          value.fields());
    } else {
        return std::tie(value);
    }
}

// Their names: what lies in a struct inside has its name before it.
template <class T> void add_names(const std::string& before, std::vector<std::string>& names) {
    std::istringstream listed(T::field_names);
    const auto add = [&](auto& field) {
        using Field = std::decay_t<decltype(field)>;
        std::string name;
        std::getline(listed >> std::ws, name, ',');
        if constexpr (has_fields<Field>) {
            add_names<Field>(before + name + "_", names);
        } else {
            names.push_back(before + name);
        }
    };
    T value{};
    std::apply([&](auto&... fields) { (add(fields), ...); }, value.fields());
}

// What Python passes for a field.
template <class T>
using Passed = std::conditional_t<std::is_pointer_v<T>, Address,
                                  std::conditional_t<std::is_enum_v<T>, int, T>>;

template <class T> T unpacked(Passed<T> value) {
    if constexpr (std::is_pointer_v<T>) {
        return reinterpret_cast<T>(value);
    } else {
        return static_cast<T>(value);
    }
}

template <class... Place> struct Names {
    const char* names[sizeof...(Place)]; // of the last arguments: where to run
};

template <class Args, class Needed, class Run, class... Leaves, class... Place, std::size_t... i>
void bind(py::module_& module, const char* name, Needed needed, Run run, std::tuple<Leaves&...>*,
          Names<Place...> place_names, std::index_sequence<i...>) {
    std::vector<std::string> names;
    add_names<Args>("", names);
    names.insert(names.end(), {"workspace", "workspace_bytes"});
    names.insert(names.end(), std::begin(place_names.names), std::end(place_names.names));
    module.def(
        name,
        [needed, run](Passed<Leaves>... passed, Address workspace, std::int64_t workspace_bytes,
                      Place... place) -> std::int64_t {
            Args args{};
            leaves(args) = std::make_tuple(unpacked<Leaves>(passed)...);
            check(args);
            PYXAI_CHECK(workspace % kAlignment == 0, "workspace not aligned to 64 bytes");
            PYXAI_CHECK(workspace_bytes == 0 || workspace != 0, "workspace is null");
            const std::int64_t bytes = needed(args, place...);
            if (bytes > workspace_bytes) {
                return bytes;
            }
            run(args, reinterpret_cast<void*>(workspace), place...);
            return 0;
        },
        py::arg(names[i].c_str())..., py::call_guard<py::gil_scoped_release>());
}

// `needed(args, place...)` says how many bytes, `run(args, workspace, place...)` runs the kernel.
template <class Args, class Needed, class Run, class... Place>
void bind(py::module_& module, const char* name, Needed needed, Run run, Names<Place...> names) {
    using Leaves = decltype(leaves(std::declval<Args&>()));
    bind<Args>(module, name, needed, run, static_cast<Leaves*>(nullptr), names,
               std::make_index_sequence<std::tuple_size_v<Leaves> + 2 + sizeof...(Place)>());
}

} // namespace pyxai
