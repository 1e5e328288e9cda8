"""Pruning inside Hugging Face transformers: attach, its report and the table of models."""

from .models import MODELS, ModelSpec
from .pruner import Pruner, attach
from .report import ImageReport, Report

__all__ = ["MODELS", "ImageReport", "ModelSpec", "Pruner", "Report", "attach"]
