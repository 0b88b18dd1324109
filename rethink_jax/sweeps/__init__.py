"""Many runs: a table or a figure."""
