"""The two random views of an image: the draws, and the engines that carry them out."""
