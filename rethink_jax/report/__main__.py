"""The command that only reads: `python -m rethink_jax.report --workdir=DIR`."""

import argparse
import sys
from typing import NoReturn

import jax

from rethink_jax.config import UserError
from rethink_jax.report import contents

FAILED, BAD_INPUT = 1, 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; usage: python -m rethink_jax.report --workdir=DIR")


def main(argv: list[str] | None = None) -> None:
    """Writes the report, and leaves with 0, 1 or 2."""
    parser = _Parser(prog="python -m rethink_jax.report", description=contents.__doc__)
    parser.add_argument(
        "--workdir", required=True, help="a sweep's directory, or one with kernels or theory in it"
    )
    # Models are only asked for their shapes; an accelerator may be busy with the next sweep.
    jax.config.update("jax_platforms", "cpu")
    try:
        folder = contents.write(parser.parse_args(argv).workdir)
    except (UserError, OSError) as error:
        print(f"rethink_jax: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT if isinstance(error, UserError) else FAILED)
    print(f"{folder}/report.md, report.html, report.csv, report.json and the figures are written")


if __name__ == "__main__":
    main()
