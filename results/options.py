"""Kept spelling of `results.cells.options`, which notebooks import."""

from results.cells.options import Options as Options
from results.cells.options import filters as filters
from results.cells.options import words as words
