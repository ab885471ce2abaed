"""One rank's engine: a background thread that negotiates and executes. Independent of torch and its collectives."""
