"""Many runs: processes side by side, sweeps, tables and comparisons of run folders."""
