"""How far do the scores of a run agree with published C-scores?

    python docs/results/cscores.py RUN PUBLISHED [SCORE]

RUN is the directory of a finished run of `configs/cscores.py`, or of a training run with records, and SCORE a
column of its `scores.csv`, by default `c_score`. The user brings PUBLISHED, as `c_scores.read_published` reads
it; Jiang et al. publish such files. Prints JSON. Not in the paper.
"""

import json
import sys

from etils import epath

from rethink_jax.errors import UserError
from rethink_jax.runs import score_table
from rethink_jax.theory import c_scores


def main(run: str, published: str, score: str = "c_score") -> None:
    """Compares the files that the command line names."""
    table = score_table.read(epath.Path(run) / "scores.csv")
    if score not in table.scores:
        raise UserError(
            f"{run}/scores.csv has no column {score!r}; it has {', '.join(table.scores)}"
        )
    truth = c_scores.read_published(epath.Path(published), table)
    print(json.dumps(c_scores.compare(table.scores[score], truth, table.true_labels), indent=2))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
