"""Build time only: checkpoint -> artifact (machine code and one flat weight file). Nothing at run time imports this.

Read it in the order it runs: export, pack, rewrite, codegen, package, check.
"""
