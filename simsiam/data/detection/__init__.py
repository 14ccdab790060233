"""Images with boxes and masks of single objects."""
