"""What a trial computes: models, data, pretraining recipes, probes.

Importing this package registers its models with timm: ``timm.create_model("specvit_small_patch16_224")``.
"""

from specvit.timm_hook import register_with_timm

register_with_timm()
