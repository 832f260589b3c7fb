"""Routing maps of mixtures of experts: which experts tokens are sent to, as data and to be looked at."""
