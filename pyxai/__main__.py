"""`python -m pyxai`: what is installed and what it can use."""

from pyxai.cli.info import report

if __name__ == "__main__":
    print(report())  # noqa: T201
