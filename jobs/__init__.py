"""What can be run: one file per subcommand of `cxrdist`, the command line itself, and named experiments in specs/."""
