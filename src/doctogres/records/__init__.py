"""Records: what was found out about single slides, as rows that any process can make."""
