"""`ernie-rt bench`: how fast a model is on this machine, on each backend and beside other programs."""
