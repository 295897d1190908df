"""Full training of a chosen network: a PSNR stage, and on request a GAN stage after it.

This module brings no torch; `search.training.trainer` brings torch and Lightning Fabric (two seconds).
"""

from search.training.plan import GanPlan, PerceptualPlan, TrainingPlan
from search.training.recipe import Recipe, load_recipe

__all__ = ["GanPlan", "PerceptualPlan", "Recipe", "TrainingPlan", "load_recipe"]
