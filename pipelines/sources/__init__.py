"""One file per kind of source, each turning what is there into a listing of samples."""
