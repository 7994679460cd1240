"""When does which way of serving cost least? Prices, closed forms, a simulation of Lambda's environments,
plots.
"""
