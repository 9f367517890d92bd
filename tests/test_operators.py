"""The records of the operators: what is registered of each, and that no list of tests lacks one."""

from __future__ import annotations

import pytest
import torch
from fuzz_operators import operators as fuzzed
from test_ops_refusals import UNFIT, fitting
from test_ops_second_derivatives import CASES

from pyxai.ops._operator import OPERATORS


def test_lists_of_tests():
    """Refusals, calls at random and second derivatives name every operator that they are about."""
    assert {name for name, *_ in UNFIT} == OPERATORS.keys()
    assert {each.name for each in fuzzed.OPERATORS.values() if each.registered} == OPERATORS.keys()
    differentiable = {name for name, each in OPERATORS.items() if each.backward is not None}
    assert differentiable == CASES.keys() - {"cam_project_render"}


@pytest.mark.parametrize("name", OPERATORS)
def test_tensors_of_the_schema(name):
    schema = getattr(torch.ops.pyxai, name).default._schema
    assert [each.name for each in schema.arguments] == [*fitting(name)]
    places = [i for i, each in enumerate(schema.arguments) if "Tensor" in str(each.type)]
    assert OPERATORS[name].tensors == tuple(places)


@pytest.mark.parametrize("name", OPERATORS)
def test_opcheck(name):
    """Schema, autograd registration, shapes without data and torch.compile, by torch's own test."""
    arguments = tuple(fitting(name).values())
    torch.library.opcheck(getattr(torch.ops.pyxai, name).default, arguments)


@pytest.mark.parametrize("name", OPERATORS)
def test_kernels_as_their_references(name):
    """On arguments that fit; the tests of each operator say more."""
    operator = OPERATORS[name]
    found, expected = (operator.check(*fitting(name).values()) for _ in range(2))
    results = operator.kernel(*found), operator.reference(*expected)
    torch.testing.assert_close(*results, equal_nan=True)
    for one, other in zip(found, expected, strict=True):  # some are changed
        if torch.is_tensor(one):
            torch.testing.assert_close(one, other)
