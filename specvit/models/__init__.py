"""The backbone: timm's ViT with routed layers, scales, pretrained weights."""
