"""The fields of a kernel interpolation's config (section 4, Table 3)."""

from rethink_jax.config.base import COMPILATION_CACHE, DATA, EXPERIMENT, GRACE_SECONDS, SMALL_SET
from rethink_jax.config.fields import (
    PAPER,
    SEED,
    Allowed,
    Field,
    Fields,
    of_numbers,
    of_sets_of_numbers,
    one_of,
    within,
)

FIELDS: Fields = {
    "experiment": EXPERIMENT._replace(default="kernel"),
    "seed": Field(
        0,
        "Seed of the validation part, the preconditioner's pivots, random filters and replaced labels.",
        SEED,
        in_report=False,
    ),
    **DATA,
    "features.name": Field(
        "pixels",
        "What the kernel sees.",
        one_of("pixels", "gabor", "random_convolutions"),
        PAPER,
    ),
    "features.orientations": Field(8, "Orientations of `gabor` wavelets.", within(1, 64)),
    "features.wavelengths": Field(
        ((4.0, 8.0),),
        "Sets of wavelengths of `gabor`, in pixels; of several the best is chosen.",
        of_sets_of_numbers(
            "tuples of numbers in [2, 256], for example ((4, 8),)", lambda x: 2 <= x <= 256
        ),
    ),
    "features.pools": Field(
        (8,),
        "Sides of the squares over which `gabor` magnitudes are pooled; of several the best is chosen.",
        of_numbers("whole numbers in [1, 256]", lambda x: type(x) is int and 1 <= x <= 256),
    ),
    "features.filters": Field(32_000, "Filters of `random_convolutions`.", within(1, 10**6), PAPER),
    "kernel.name": Field("gaussian", "The kernel.", one_of("gaussian", "linear"), PAPER),
    "kernel.gammas": Field(
        (1.0,),
        "γ of exp(−γ‖x − y‖²); of several the best on the validation part is chosen.",
        of_numbers("one or more numbers above 0", lambda x: 0 < x < float("inf")),
    ),
    "kernel.ridges": Field(
        (0.0,),
        "Numbers added to the matrix's diagonal, chosen likewise.",
        of_numbers("one or more numbers of 0 or more", lambda x: 0 <= x < float("inf")),
    ),
    "kernel.gamma_scale": Field(
        False, "Whether γ is divided by the mean squared distance of two training examples."
    ),
    "kernel.validation_fraction": Field(
        0.2,
        "Share of the training set on which γ, ridge and features are chosen.",
        within(0.01, 0.9),
    ),
    "kernel.selection_examples": Field(
        SMALL_SET, "Examples of the rest, at most, that candidates are solved on.", within(1, 10**6)
    ),
    "noise.probabilities": Field(
        None,
        "Probabilities with which labels are replaced by a uniform random class; the same matrix is solved for "
        "each.",
        of_numbers("one or more numbers in (0, 1]", lambda p: 0 < p <= 1),
        kind=tuple,
        unset="true labels alone",
        is_later=True,
    ),
    "solver.dtype": Field(
        None,
        "Type of the matrix.",
        (Allowed("float32 or float64", lambda value: value in ("float32", "float64")),),
        kind=str,
        unset="float64 up to 20,000 examples, float32 beyond",
        may_change=True,
    ),
    "solver.rank": Field(
        2000,
        "Rank of the preconditioner; with as many as examples, and in float64, it is the matrix's own inverse.",
        within(1, 100_000),
        may_change=True,
    ),
    "solver.tolerance": Field(
        1e-3, "Relative residual at which a solve ends.", within(1e-12, 0.5), may_change=True
    ),
    "solver.max_iterations": Field(
        2000, "Iterations after which a solve fails.", within(1, 10**6), may_change=True
    ),
    "solver.save_seconds": Field(
        60.0, "Seconds from one saved iterate to the next.", within(0, 86_400), may_change=True
    ),
    "grace_seconds": GRACE_SECONDS._replace(allowed=within(0.1, 86_400)),
    "compilation_cache": COMPILATION_CACHE,
}
