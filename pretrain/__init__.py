"""Images in, LEWEL checkpoint out."""
