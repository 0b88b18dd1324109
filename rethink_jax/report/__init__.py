"""Tables and figures of a sweep beside the paper's: `python -m rethink_jax.report --workdir=DIR`."""
