"""Kinds of training scripts that `coordsim profile` must leave as they are (:mod:`tests.bench.profile_scripts.run`)."""
