"""Our weights through the doors of other programs: scikit-learn, timm."""
