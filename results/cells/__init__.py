"""Runs that differ in their seed only, as one cell: chosen, checked, averaged, compared, put into words."""
