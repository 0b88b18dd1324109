"""Tables and figures beside the paper's: `python -m rethink_jax.report --workdir=DIR`."""
