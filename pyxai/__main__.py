"""`python -m pyxai`: the command line; without arguments, what is installed and can be used."""

import sys

if __name__ == "__main__":
    if len(sys.argv) == 1:
        from pyxai.cli.info import report

        print(report())  # noqa: T201
    else:
        from pyxai.cli import main

        main()
