//! Pure mathematics: totals in; estimates, intervals and a verdict out.
