"""Training on several ranks: processes that torchrun starts, on one machine or on many.

One rank is the ordinary case. It needs no process group, and nothing here changes its results.
"""
