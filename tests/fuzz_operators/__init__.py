"""Calls of the native operators at random, fit and unfit; `python -m fuzz_operators --help`.

`operators` makes a fit call of each, `spoilers` change its arguments, `calls` makes the call of a
seed and a number and judges what comes of it, and `__main__` does so for many in a process of their
own, so that a crash has a number too.
"""
