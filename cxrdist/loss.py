"""Kept spelling of `cxrdist.nt_xent`."""

from cxrdist.pretrain.losses.nt_xent import nt_xent as nt_xent
