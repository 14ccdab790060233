"""Semantic segmentation on a pre-trained ResNet."""
