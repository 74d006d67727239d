"""Images in, checkpoint of LEWEL or another method out."""
