"""Fourteen checks of a Lightning module and its data, before a night is spent on training it.

findings = run_all(Subject("mine", MyModel, MyData, classes=10))  # of checks.run and checks.subject
table(findings)

After A. Karpathy, "A Recipe for Training Neural Networks", 2019.
"""
