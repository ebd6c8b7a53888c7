"""SciPy's names, in rooms as SciPy has them: `fastgrad.scipy.special`."""
