"""A file of requests through a Distributed Map, simulated: how long it takes, how many environments, what it costs."""
