"""The command that only reads: `python -m rethink_jax.report --workdir=DIR [--workdir=DIR …]`."""

import sys

import jax

from rethink_jax import errors, output
from rethink_jax.report import contents


def main(argv: list[str] | None = None) -> None:
    """Writes the report, and leaves with 0, 1 or 2."""
    parser = errors.Parser("rethink_jax.report", "--workdir=DIR", contents.__doc__)
    parser.add_argument(
        "--workdir",
        required=True,
        action="append",
        help="a directory of a sweep, a run or runs, or a report.json; may be given several times",
    )
    parser.add_argument(
        "--out", help="where to write; by default WORKDIR/report, and of several here in report"
    )
    parser.add_argument(
        "--c_scores", help="a file of published C-scores, for the page on single examples"
    )
    # Models are only asked for their shapes; an accelerator may be busy with the next sweep.
    jax.config.update("jax_platforms", "cpu")
    try:
        with errors.exit_on_error(OSError):
            arguments = parser.parse_args(argv)
            folder = contents.write(
                *arguments.workdir, out=arguments.out, published=arguments.c_scores
            )
    except Exception as error:  # an error of the report's own, which the runs are not to blame for
        line = errors.line_with_type(error)
        errors.print_error(f"the report failed, the runs are as they were: {line}")
        sys.exit(errors.FAILED)
    print(f"{folder}/report.md, report.html, report.csv, report.json and the figures are written")


if __name__ == "__main__":
    output.drop_what_cannot_be_written()
    main()
