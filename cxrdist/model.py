"""Kept spelling of `cxrdist.load_encoder` and what belongs to it."""

from cxrdist.core.backbones import build_backbone as build_backbone
from cxrdist.core.backbones import load_encoder as load_encoder
from cxrdist.core.backbones import save_encoder as save_encoder
