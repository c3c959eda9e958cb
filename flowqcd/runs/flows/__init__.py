"""Kinds of flows of links, one file a kind; `flowqcd.runs.marginals` lists them."""
