"""A folder of images to look through by example: thumbnails, contact sheets, and a page on this machine alone."""
