"""A study: one TOML file of stages, run here or on SLURM into one folder.

file      what a study file says, and the values that are filled in
folder    the study's folder: what it was begun with, logs, a record of each stage
standing  the state and the estimated cost of every stage
follow    one stage as a process: its output on the terminal and in its log
stage     what that process does first
here      all stages on this machine
report    the page at the end
"""
