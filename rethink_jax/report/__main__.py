"""The command that only reads: `python -m rethink_jax.report --workdir=DIR [--workdir=DIR …]`."""

import argparse
import sys
from typing import NoReturn

import jax

from rethink_jax import output
from rethink_jax.errors import UserError
from rethink_jax.report import contents

FAILED, BAD_INPUT = 1, 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; usage: python -m rethink_jax.report --workdir=DIR")


def main(argv: list[str] | None = None) -> None:
    """Writes the report, and leaves with 0, 1 or 2."""
    parser = _Parser(prog="python -m rethink_jax.report", description=contents.__doc__)
    parser.add_argument(
        "--workdir",
        required=True,
        action="append",
        help="a directory of a sweep, a run or runs, or a report.json; may be given several times",
    )
    parser.add_argument(
        "--out", help="where to write; by default WORKDIR/report, and of several here in report"
    )
    # Models are only asked for their shapes; an accelerator may be busy with the next sweep.
    jax.config.update("jax_platforms", "cpu")
    try:
        arguments = parser.parse_args(argv)
        folder = contents.write(*arguments.workdir, out=arguments.out)
    except (UserError, OSError) as error:
        print(f"rethink_jax: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT if isinstance(error, UserError) else FAILED)
    except Exception as error:  # an error of the report's own, which the runs are not to blame for
        line = " ".join(f"{type(error).__name__}: {error}".split())[:500]
        print(f"rethink_jax: the report failed, the runs are as they were: {line}", file=sys.stderr)
        sys.exit(FAILED)
    print(f"{folder}/report.md, report.html, report.csv, report.json and the figures are written")


if __name__ == "__main__":
    output.drop_what_cannot_be_written()
    main()
