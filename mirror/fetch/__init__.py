"""Reading the mirror for training: never iNaturalist, and never a byte that was not checked."""
