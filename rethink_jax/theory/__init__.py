"""The paper's theory, run: Theorem 1 and its corollary."""
