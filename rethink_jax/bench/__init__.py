"""How fast things are: `python -m rethink_jax.bench`."""
