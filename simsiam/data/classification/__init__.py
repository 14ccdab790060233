"""Images with one label or several each: folders, lists, CSV files and the known sets."""
