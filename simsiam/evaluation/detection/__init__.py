"""Faster R-CNN and Mask R-CNN on a pre-trained ResNet, in the published C4 and FPN forms."""
