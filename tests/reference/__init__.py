"""Slow, plain NumPy twins of the kernels, written from the equations and not from the C."""
