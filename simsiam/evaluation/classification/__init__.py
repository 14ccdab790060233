"""Protocols whose answer is a class: kNN, SVMs, linear and fine-tuned classifiers, clustering, retrieval."""
