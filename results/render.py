"""Kept spelling of `results.tables.render`, which notebooks import."""

from results.tables.render import FORMATS as FORMATS
from results.tables.render import Table as Table
from results.tables.render import render as render
