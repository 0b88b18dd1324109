"""Minimum-norm interpolation with kernels (section 5, Table 3)."""
