"""Features of a frozen backbone: extraction, the files that they are kept in, exact nearest neighbours."""
